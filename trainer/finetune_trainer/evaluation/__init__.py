"""Base and tuned model on the same rows, and the metrics of a split."""

"""Base and tuned model on the same rows.

`evaluator` puts rows through a model, `metrics` gathers figures of a whole split without keeping logits, `report` is
what is published of both: evaluation.json.
"""

"""FineTuneJob: one run of a fine-tuning."""

"""Losses as sums beside the number of their targets; a language model's without its logits."""

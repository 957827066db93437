"""A model learns answers, each with its end of turn, and nothing of what was asked."""

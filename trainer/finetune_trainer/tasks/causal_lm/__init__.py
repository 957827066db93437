"""A model learns to continue plain text."""

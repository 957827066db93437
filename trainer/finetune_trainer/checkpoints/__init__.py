"""Weights that are kept while a model is trained: `best` for now."""

"""Weights that are kept while a model is trained: `best` holds those of the best evaluation on the local disk."""

"""A text, or a pair of texts, gets one label of a set."""

"""Attempts of a run: starting one, following it, ending it."""

__all__: list[str] = []

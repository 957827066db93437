"""One pure file per rule; they don't know each other."""

__all__: list[str] = []

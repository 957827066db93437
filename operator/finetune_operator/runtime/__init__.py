"""What any controller of ours needs to run."""

__all__: list[str] = []

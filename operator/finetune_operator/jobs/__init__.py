"""FineTuneJobs: what is decided about one, and the Jobs it gets."""

__all__: list[str] = []

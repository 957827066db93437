"""Loads the fixtures of tests/support; needs no tool at import."""

import gc

pytest_plugins = ["cluster_fixtures", "product_fixtures"]


def pytest_collection_finish() -> None:
    """Spare later collections the objects of everything imported so far.

    Training collects garbage at its end; with the whole training stack in memory that was a fifth of each short run.
    """
    gc.collect()
    gc.freeze()

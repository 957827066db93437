"""What the tests say where the packages of the examples cannot be downloaded."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from finetune_demo import sources


@contextmanager
def reachable_packages() -> Iterator[None]:
    """Let a package that cannot be downloaded fail in CI, and skip with the reason anywhere else."""
    try:
        yield
    except sources.SourceUnavailableError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))

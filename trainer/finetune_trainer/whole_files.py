"""Local files that are there whole or not at all, whenever a process ends and whoever reads them meanwhile."""

import contextlib
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the path of a file to write, which takes the place of `path` once the block ends without an error."""
    partial = path.with_suffix(".partial")
    yield partial
    partial.replace(path)

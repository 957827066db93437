"""The bench of the sweep."""

from collections.abc import Iterator

import architecture_cells
import pytest
from architecture_cells import Bench


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A folder of buckets with the sweep's rows, and this process as a pod that uses it."""
    with architecture_cells.open_bench(tmp_path_factory.mktemp("buckets")) as bench:
        yield bench

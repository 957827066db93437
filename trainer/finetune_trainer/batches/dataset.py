"""The rows of one split as the prepare stage wrote them, mapped from disk: nothing is tokenized or copied twice.

Parquet can't be mapped, so it is unpacked once, row group by row group, into an Arrow IPC file on the scratch disk.
Memory holds only the pages in use, whatever the number of rows; the ranks of a pod share them.
"""

import bisect
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy
import pyarrow
import pyarrow.parquet
from numpy.typing import NDArray

_ROW = "row"

_Values: TypeAlias = NDArray[Any]


class _Column(NamedTuple):
    """A column of a record batch: a value per row or, where there are offsets, a list of values."""

    values: _Values
    offsets: NDArray[numpy.int32] | None

    def __getitem__(self, row: Any) -> Any:
        return self.values[row if self.offsets is None else slice(self.offsets[row], self.offsets[row + 1])]

    def measure(self) -> NDArray[numpy.int32]:
        """Return the length of each row's list."""
        return numpy.diff(self.offsets) if self.offsets is not None else numpy.ones(len(self.values), numpy.int32)


class Rows:
    """The rows of one split.

    Args:
        path: of the file that `unpack_rows` wrote.
        tokens: columns whose tokens go through the model; a row is as long as all of them.
    """

    def __init__(self, path: Path, tokens: Sequence[str] = ("input_ids",)) -> None:
        self.sources: list[int] = []
        """Index of each row in its source, from 0."""
        self.lengths: list[int] = []
        """Tokens of each row."""
        self._batches: list[dict[str, _Column]] = []
        self._starts: list[int] = []
        with pyarrow.memory_map(str(path)) as mapped, pyarrow.ipc.open_file(mapped) as file:
            for batch in map(file.get_batch, range(file.num_record_batches)):
                columns = {name: _view(batch.column(name)) for name in batch.schema.names}
                self._starts.append(len(self.sources))
                self.sources += columns.pop(_ROW).values.tolist()
                self._batches.append(columns)
                sizes = [columns[name].measure() for name in tokens if name in columns]
                if sizes:
                    total: NDArray[numpy.int32] = numpy.sum(sizes, axis=0)
                    self.lengths += total.tolist()

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, index: int) -> dict[str, Any]:
        batch = bisect.bisect_right(self._starts, index) - 1
        row = index - self._starts[batch]
        return {name: column[row] for name, column in self._batches[batch].items()}


def unpack_rows(parquet: Path) -> None:
    """Write a prepared file as an Arrow IPC file beside it; no rows where there is no file."""
    if not parquet.exists():
        with pyarrow.ipc.new_file(str(_name(parquet)), pyarrow.schema([(_ROW, pyarrow.int64())])):
            return
    with (
        pyarrow.parquet.ParquetFile(parquet) as file,
        pyarrow.ipc.new_file(str(_name(parquet)), file.schema_arrow) as target,
    ):
        for group in range(file.num_row_groups):
            target.write_table(file.read_row_group(group))


def load_rows(parquet: Path, tokens: Sequence[str] = ("input_ids",)) -> Rows:
    """Map one split that `unpack_rows` has unpacked; `tokens` as for `Rows`."""
    return Rows(_name(parquet), tokens)


def _name(parquet: Path) -> Path:
    return parquet.with_suffix(".arrow")


def _view(column: Any) -> _Column:
    """Return a column without copying it; the views keep the mapping alive."""
    if pyarrow.types.is_list(column.type):
        return _Column(column.values.to_numpy(), column.offsets.to_numpy())
    return _Column(column.to_numpy(), None)

"""The rows of one split as the prepare stage wrote them, mapped from disk: nothing is tokenized or copied twice.

Parquet can't be mapped, so it is unpacked once, row group by row group, into flat files on the scratch disk: one file
of values per column and, for lists, one of offsets. Memory holds only the pages in use, whatever the number of rows;
the ranks of a pod share them.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
import pyarrow
import pyarrow.parquet

_INDEX = "columns.json"
_ROW = "row"


class Rows:
    """The rows of one split.

    Args:
        folder: from `unpack_rows`.
        tokens: columns whose tokens go through the model; a row is as long as all of them.
    """

    def __init__(self, folder: Path, tokens: Sequence[str] = ("input_ids",)) -> None:
        columns: dict[str, str] = json.loads((folder / _INDEX).read_text())
        self._columns = {
            name: (_map(folder / f"{name}.values", kind), _map_offsets(folder / f"{name}.offsets"))
            for name, kind in columns.items()
            if name != _ROW
        }
        self.sources: list[int] = _map(folder / f"{_ROW}.values", columns[_ROW]).tolist()
        """Index of each row in its source, from 0."""
        offsets = [self._columns[name][1] for name in tokens if name in self._columns]
        self.lengths: list[int] = numpy.sum([numpy.diff(ends) for ends in offsets], axis=0).tolist() if offsets else []
        """Tokens of each row."""

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row: dict[str, Any] = {}
        for name, (values, offsets) in self._columns.items():
            row[name] = values[index] if offsets is None else values[offsets[index] : offsets[index + 1]]
        return row


def unpack_rows(parquet: Path) -> None:
    """Write the columns of a prepared file as flat files into a folder beside it; no rows where there is no file."""
    folder = _folder(parquet)
    folder.mkdir(parents=True, exist_ok=True)
    if not parquet.exists():
        columns = {_ROW: "int64"}
        (folder / f"{_ROW}.values").write_bytes(b"")
    else:
        with pyarrow.parquet.ParquetFile(parquet) as file:
            columns = {field.name: _unpack_column(file, field, folder) for field in file.schema_arrow}
    (folder / _INDEX).write_text(json.dumps(columns))


def load_rows(parquet: Path, tokens: Sequence[str] = ("input_ids",)) -> Rows:
    """Map one split that `unpack_rows` has unpacked; `tokens` as for `Rows`."""
    return Rows(_folder(parquet), tokens)


def _folder(parquet: Path) -> Path:
    return parquet.with_suffix(".rows")


def _unpack_column(file: pyarrow.parquet.ParquetFile, field: Any, folder: Path) -> str:
    """Write one column's values, and its offsets where each row holds a list; return numpy's name of the values."""
    is_list = pyarrow.types.is_list(field.type)
    kind = (field.type.value_type if is_list else field.type).to_pandas_dtype()
    end = 0
    with (folder / f"{field.name}.values").open("wb") as values, (folder / f"{field.name}.offsets").open("wb") as ends:
        if is_list:
            numpy.zeros(1, numpy.int64).tofile(ends)
        for group in range(file.num_row_groups):
            column: Any = file.read_row_group(group, columns=[field.name])[field.name]
            for chunk in column.chunks:
                if is_list:
                    (end + numpy.cumsum(chunk.value_lengths().to_numpy(), dtype=numpy.int64)).tofile(ends)
                flat = chunk.flatten() if is_list else chunk
                flat.to_numpy(zero_copy_only=False).astype(kind, copy=False).tofile(values)
                end += len(flat)
    if not is_list:
        (folder / f"{field.name}.offsets").unlink()
    return str(numpy.dtype(kind).name)


def _map(path: Path, kind: str) -> Any:
    # An empty file can't be mapped.
    return numpy.memmap(path, dtype=kind, mode="r") if path.stat().st_size else numpy.zeros(0, kind)


def _map_offsets(path: Path) -> Any:
    return _map(path, "int64") if path.exists() else None

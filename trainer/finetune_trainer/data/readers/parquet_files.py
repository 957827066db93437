"""Rows of a .parquet file, a batch at a time.

A page of a parquet file may stand for any number of equal values: what a file becomes in memory is bounded before it
is decoded, from what its footer says of each column and each page of itself, and again as batches come.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.compute
import pyarrow.parquet

from finetune_api import wording
from finetune_api.errors import DataError
from finetune_trainer.data.findings import Findings
from finetune_trainer.data.readers import parquet_pages, signatures
from finetune_trainer.data.readers.parquet_pages import PageError
from finetune_trainer.data.readers.record import MAX_COLUMNS, MAX_GROWTH, MAX_ROW_BYTES, Record

MAX_PAGE_BYTES = 2**30
"""Most bytes of one column of one row group, decompressed (a choice): writers end a group at 128 to 512 MB."""
MAX_GROUP_VALUES = 2**26
"""Most values of one column of one row group (a choice): a million rows, each a conversation of 64 parts."""
FREE_GROWTH_BYTES = 2**26
"""What any file may become (a choice): a column of a million equal labels takes a hundred bytes."""

_BATCH_VALUES = 2**20
"""Most values of a column that are decoded at a time (a choice): 8 MB, texts are indices of a dictionary then."""
_BATCH_ROWS = 2**16
_SLICE_ROWS = 1024
_SLICE_BYTES = 2**24
"""Rows and bytes that become Python's values at a time (a choice)."""
_INDEX_COLUMN = "__index_level_"
"""What pandas calls an index without a name."""


def read_batches(path: Path, name: str, findings: Findings) -> Iterator[Record]:
    """Read a .parquet file."""
    if not name.lower().endswith(".parquet"):
        raise DataError(f"{name} must not be compressed from outside", "upload the .parquet file as it is.")
    with path.open("rb") as stream:
        head = stream.read(2048)
    if not head:
        return
    signatures.check_parquet(head, name)
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            columns = _check_schema(file.schema_arrow, name)
            whole = file.schema_arrow
            texts = [leaf.path for leaf in map(file.schema.column, range(len(file.schema))) if _is_text(leaf)]
        # Texts stay dictionaries until they were measured: a value that stands in a thousand rows is in memory once.
        with pyarrow.parquet.ParquetFile(path, read_dictionary=texts) as file:
            kept = pyarrow.schema([_build_plain(whole.field(column)) for column in columns])
            _check_pages(file.metadata, path, name)
            yield from _read_groups(file, kept, path.stat().st_size, name, findings)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(
            f"{name} must be a whole parquet file; {wording.show_error(error)}", "upload the file again."
        ) from error


def _build_plain(field: Any) -> Any:
    """Return a field whose texts have a type that dictionaries can be turned into; views can't."""
    plain = {pyarrow.string_view(): pyarrow.large_string(), pyarrow.binary_view(): pyarrow.large_binary()}
    return field.with_type(plain.get(field.type, field.type))


def _is_text(leaf: Any) -> bool:
    return bool(leaf.physical_type == "BYTE_ARRAY" and leaf.logical_type.type in ("STRING", "NONE"))


def _check_schema(schema: pyarrow.Schema, name: str) -> list[str]:
    """Return the columns to read."""
    if len(schema.names) > MAX_COLUMNS:
        raise DataError(
            f"{name} must have at most {MAX_COLUMNS} columns, not {len(schema.names)}", "leave out those not needed."
        )
    repeated = sorted({column for column in schema.names if schema.names.count(column) > 1})
    if repeated:
        raise DataError(
            f"{name} must name each column once; {wording.show_names(repeated)} stands there more than once",
            "rename or remove one of them.",
        )
    return [column for column in schema.names if not column.startswith(_INDEX_COLUMN)]


def _read_groups(
    file: pyarrow.parquet.ParquetFile, schema: pyarrow.Schema, num_bytes: int, name: str, findings: Findings
) -> Iterator[Record]:
    number = 0
    bound = left = _get_bound(num_bytes)
    for group in range(file.num_row_groups):
        batch_rows = _count_batch_rows(file.metadata.row_group(group))
        for batch in file.iter_batches(batch_rows, row_groups=[group], columns=schema.names):
            for part, size in _iterate_slices(batch):
                left -= size
                if left < 0:
                    raise DataError(
                        f"{name} row {number + 1}: a file of {num_bytes} bytes must not grow to more than {bound}",
                        "leave out rows that repeat others.",
                    )
                for values in _convert_rows(part, schema, name, number):
                    number += 1
                    place = f"{name} row {number}"
                    if _measure(values) > MAX_ROW_BYTES:
                        findings.add(place, f"must have at most {MAX_ROW_BYTES} bytes")
                    else:
                        yield Record(place, values)


def _iterate_slices(batch: pyarrow.RecordBatch) -> Iterator[tuple[pyarrow.RecordBatch, int]]:
    """Yield parts of a batch that are small once decoded, each with its size."""
    for start in range(0, batch.num_rows, _SLICE_ROWS):
        # Copied, because a cast works on all that the lists of a slice stand in.
        part = batch.take(pyarrow.array(range(start, min(start + _SLICE_ROWS, batch.num_rows))))
        size = sum(map(_measure_column, part.columns))
        if size <= _SLICE_BYTES:
            yield part, size
            continue
        for row in range(part.num_rows):
            single = part.take(pyarrow.array([row]))
            yield single, sum(map(_measure_column, single.columns))


def _measure_column(column: Any) -> int:
    """Return the bytes of a column's values once each text stands for itself."""
    kind = column.type
    if pyarrow.types.is_dictionary(kind):
        lengths = pyarrow.compute.binary_length(column.dictionary)
        return int(pyarrow.compute.sum(pyarrow.compute.take(lengths, column.indices)).as_py() or 0)
    if pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind) or pyarrow.types.is_map(kind):
        return _measure_column(column.flatten() if not pyarrow.types.is_map(kind) else column.items)
    if pyarrow.types.is_struct(kind):
        return sum(_measure_column(column.field(index)) for index in range(kind.num_fields))
    return int(column.nbytes)


def _get_bound(num_bytes: int) -> int:
    """Return how many bytes a file may become."""
    return max(FREE_GROWTH_BYTES, num_bytes * MAX_GROWTH)


def _check_pages(metadata: Any, path: Path, name: str) -> None:
    """Check every column of every row group before the first one is decoded.

    Raises:
        DataError: one would take too much memory, or states what can't be.
    """
    bound = min(MAX_PAGE_BYTES, _get_bound(path.stat().st_size))
    with path.open("rb") as stream:
        for index in range(metadata.num_row_groups):
            group = metadata.row_group(index)
            _check_group(group, name, index)
            for chunk in map(group.column, range(group.num_columns)):
                try:
                    parquet_pages.check_pages(stream, chunk, bound)
                except PageError as error:
                    column = wording.show_value(chunk.path_in_schema)
                    raise DataError(
                        f"{name}: column {column} in row group {index + 1} must {error}",
                        "write the file again, with a current version of pyarrow for instance.",
                    ) from error


def _check_group(group: Any, name: str, index: int) -> None:
    """Check what the footer says of a row group.

    Raises:
        DataError: a column of it would take too much memory.
    """
    most_values = 0
    for number in range(group.num_columns):
        chunk = group.column(number)
        most_values = max(most_values, chunk.num_values)
        if chunk.total_uncompressed_size > MAX_PAGE_BYTES:
            raise DataError(
                f"{name}: column {wording.show_value(chunk.path_in_schema)} must have at most {MAX_PAGE_BYTES} bytes in"
                f" a row group; group {index + 1} has {chunk.total_uncompressed_size}",
                "write the file with smaller row groups.",
            )
    if most_values > MAX_GROUP_VALUES:
        raise DataError(
            f"{name}: a row group must have at most {MAX_GROUP_VALUES} values in a column; group {index + 1} has"
            f" {most_values}",
            "write the file with smaller row groups.",
        )


def _count_batch_rows(group: Any) -> int:
    """Return how many rows of a group to read at a time."""
    most_values = max((group.column(number).num_values for number in range(group.num_columns)), default=0)
    per_row = max(1, most_values // max(1, group.num_rows))
    rows: int = max(1, min(_BATCH_ROWS, _BATCH_VALUES // per_row))
    return rows


def _convert_rows(
    batch: pyarrow.RecordBatch, schema: pyarrow.Schema, name: str, number: int
) -> list[dict[str, object]]:
    """Turn rows into Python's types, which fewer values fit: a text that is not UTF-8, a date after the year 9999."""
    try:
        return list(batch.cast(schema).to_pylist())
    except (ValueError, OverflowError) as error:
        column = wording.show_value(next((field.name for field in schema if _is_unconvertible(batch, field)), ""))
        raise DataError(
            f"{name} rows {number + 1} to {number + batch.num_rows}: column {column} must hold texts"
            f" in UTF-8 and values Python can hold; {error}",
            "correct the rows, or leave the column out.",
        ) from error


def _is_unconvertible(batch: pyarrow.RecordBatch, field: Any) -> bool:
    try:
        batch.select([field.name]).cast(pyarrow.schema([field])).to_pylist()
    except (ValueError, OverflowError):
        return True
    return False


def _measure(value: object) -> int:
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_measure, value.values()))
    return sum(map(_measure, value)) if isinstance(value, list) else 8

"""Rows of a .parquet file, a batch at a time."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow
import pyarrow.parquet

from finetune_api.errors import DataError
from finetune_trainer.data.findings import Findings
from finetune_trainer.data.readers.record import MAX_ROW_BYTES, Record

_PARQUET_ROWS = 1024


def read_batches(path: Path, name: str, findings: Findings) -> Iterator[Record]:
    if not name.lower().endswith(".parquet"):
        raise DataError(f"{name} must not be compressed from outside", "upload the .parquet file as it is.")
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(_PARQUET_ROWS):
                for values in _convert_rows(batch, name, number):
                    number += 1
                    place = f"{name} row {number}"
                    if _measure(values) > MAX_ROW_BYTES:
                        findings.add(place, f"must have at most {MAX_ROW_BYTES} bytes")
                    else:
                        yield Record(place, values)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{name} must be a whole parquet file; {error}", "upload the file again.") from error


def _convert_rows(batch: pyarrow.RecordBatch, name: str, number: int) -> list[dict[str, object]]:
    """Turn rows into Python's types, which fewer values fit: a text that is not UTF-8, a date after the year 9999."""
    try:
        return list(batch.to_pylist())
    except (ValueError, OverflowError) as error:
        raise DataError(
            f"{name} rows {number + 1} to {number + batch.num_rows} must hold texts in UTF-8 and values Python can"
            f" hold; {error}",
            "correct the rows, or leave the column out.",
        ) from error


def _measure(value: object) -> int:
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_measure, value.values()))
    return sum(map(_measure, value)) if isinstance(value, list) else 8

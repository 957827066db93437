"""Files as users have them, row by row: .jsonl .json .csv .tsv .parquet .txt, each also .gz or .zst.

Reading streams, and every dimension is bounded: bytes of a row, depth of JSON, and how much a compressed file may
grow. What is wrong with a row is collected with its file and line and does not stop the reading; what is wrong with a
file ends it. Nothing here knows what a row means.

Read `record` first, then `text_lines`, then a format: `json_files`, `csv_files`, `text_files`, `parquet_files`. A new
format is a module with a function from path and name to records, and one entry of `_READERS`.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from finetune_api.errors import DataError
from finetune_trainer import signals
from finetune_trainer.data.findings import Findings
from finetune_trainer.data.readers import csv_files, json_files, parquet_files, text_files
from finetune_trainer.data.readers.record import EmptyFileError, Record
from finetune_trainer.data.readers.text_lines import COMPRESSIONS

__all__ = [
    "SUFFIXES",
    "EmptyFileError",
    "Record",
    "get_format",
    "has_header",
    "read_records",
]

_POLLED_ROWS = 1000

_READERS: dict[str, Callable[[Path, str, Findings], Iterator[Record]]] = {
    ".jsonl": json_files.read_lines,
    ".json": json_files.read_document,
    ".csv": csv_files.read_commas,
    ".tsv": csv_files.read_tabs,
    ".parquet": parquet_files.read_batches,
    ".txt": text_files.read_lines,
}
SUFFIXES = tuple(_READERS)


def get_format(name: str) -> str | None:
    """Return the suffix that tells a file's format, without compression; None when it isn't one of ours."""
    name = name.lower()
    for compression in COMPRESSIONS:
        name = name.removesuffix(compression)
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), None)


def has_header(name: str) -> bool:
    """Tell whether the first line of a file names its columns."""
    return get_format(name) in (".csv", ".tsv")


def read_records(path: Path, name: str, findings: Findings) -> Iterator[Record]:
    """Yield the rows of a file.

    Args:
        path: the local copy.
        name: the file's name as the user knows it; tells format and compression.
        findings: takes what is wrong with single rows.

    Raises:
        EmptyFileError: it has no rows.
        DataError: the file as a whole can't be read: unknown format, broken compression.
    """
    file_format = get_format(name)
    if file_format is None:
        raise DataError(
            f"{name} must end with one of {', '.join(SUFFIXES)}, optionally followed by .gz or .zst", "rename the file."
        )
    count = 0
    total_before = findings.total
    for record in _READERS[file_format](path, name, findings):
        count += 1
        if count % _POLLED_ROWS == 0:
            signals.check(f"the reading of {name} at row {count}")
        yield record
    if not count and findings.total == total_before:
        what = "has a header only" if has_header(name) and _is_long(path) else "is empty"
        raise EmptyFileError(f"{name} must have at least one row; it {what}", "give a file with rows.")


def _is_long(path: Path) -> bool:
    with path.open("rb") as stream:
        return bool(stream.read(64).strip())

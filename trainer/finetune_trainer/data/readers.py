"""Files as users have them, row by row: .jsonl .json .csv .tsv .parquet .txt, each also .gz or .zst.

Reading streams, and every dimension is bounded: bytes of a row, depth of JSON, and how much a compressed file may
grow. What is wrong with a row is collected with its file and line and does not stop the reading; what is wrong with a
file ends it. Nothing here knows what a row means.
"""

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

import pyarrow
import pyarrow.parquet

from finetune_api.errors import DataError
from finetune_trainer import signals

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MAX_ROW_BYTES = 2**20
"""Longest row (a choice): a thousand times the usual, and still cheap to refuse."""
MAX_JSON_DEPTH = 32
MAX_GROWTH = 200
"""Most bytes one byte of a compressed file may become (a choice); text reaches 10 to 20."""
MAX_FINDINGS = 100
"""Findings that are kept; all are counted."""
SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".txt")
COMPRESSIONS: dict[str, Literal["gzip", "zstd"]] = {".gz": "gzip", ".zst": "zstd"}
"""By the end of a file's name, as pyarrow calls them: it notices a stream that ends early, in both."""

_SHOWN_FINDINGS = 5
_SHOWN_CHARACTERS = 80
_SHOWN_NAMES = 20
_POLLED_ROWS = 1000
_CHUNK_BYTES = 2**18
_PARQUET_ROWS = 1024
_MAX_JSON_BYTES = 256 * 2**20

# Python's own limit of 128 KiB would refuse long documents; process-wide, there is no other way.
csv.field_size_limit(MAX_ROW_BYTES)


@dataclass(frozen=True, slots=True)
class Record:
    """One row: where it stands and its columns."""

    place: str
    """File and line as a person finds them: `train.jsonl line 17`; parquet has rows, from 1."""
    values: Mapping[str, object]


class BadRowsError(DataError):
    """Rows that can't be used; the message shows the first ones, `findings` holds up to `MAX_FINDINGS`."""

    def __init__(self, findings: list[str], total: int) -> None:
        shown = "; ".join(findings[:_SHOWN_FINDINGS])
        more = f"; {total} errors in all" if total > _SHOWN_FINDINGS else ""
        super().__init__(shown + more, "correct the rows and start the job again.")
        self.findings = findings
        self.total = total


@dataclass(slots=True)
class Findings:
    """What is wrong with rows, kept until all of them were read."""

    kept: list[str] = field(default_factory=list)
    total: int = 0

    def add(self, place: str, message: str) -> None:
        """Note one error; beyond `MAX_FINDINGS` it is only counted."""
        self.total += 1
        if len(self.kept) < MAX_FINDINGS:
            self.kept.append(f"{place}: {message}")

    def raise_if_any(self) -> None:
        """End the stage when there was an error.

        Raises:
            BadRowsError: with all that was found.
        """
        if self.total:
            raise BadRowsError(self.kept, self.total)


def show_value(value: object) -> str:
    """Return a foreign value as a message may hold it: on one line, encodable, and not longer than a name should be."""
    text = str(value)[:_SHOWN_CHARACTERS]
    shown = "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)
    is_whole = len(shown) <= _SHOWN_CHARACTERS and len(str(value)) <= _SHOWN_CHARACTERS
    return shown if is_whole else shown[: _SHOWN_CHARACTERS - 1] + "…"


def show_names(names: Sequence[str]) -> str:
    """Return foreign names as a message may hold them: the first ones, and whether there are more."""
    more = ["…"] if len(names) > _SHOWN_NAMES else []
    return ", ".join([*map(show_value, names[:_SHOWN_NAMES]), *more])


def shorten(error: Exception) -> str:
    """Return a library's words as one line of a message."""
    return " ".join(str(error).split())[:300]


def get_format(name: str) -> str | None:
    """Return the suffix that tells a file's format, without compression; None when it isn't one of ours."""
    name = name.lower()
    for compression in COMPRESSIONS:
        name = name.removesuffix(compression)
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), None)


def read_records(path: Path, name: str, findings: Findings) -> Iterator[Record]:
    """Yield the rows of a file.

    Args:
        path: the local copy.
        name: the file's name as the user knows it; tells format and compression.
        findings: takes what is wrong with single rows.

    Raises:
        DataError: the file as a whole can't be read: unknown format, broken compression, empty.
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
        raise DataError(f"{name} must have at least one row; it is empty", "upload the file again.")


def _read_jsonl(path: Path, name: str, findings: Findings) -> Iterator[Record]:
    for number, line in _iterate_lines(path, name, findings):
        if line.strip():
            yield from _parse_object(line, f"{name} line {number}", findings)


def _parse_object(text: str, place: str, findings: Findings) -> Iterator[Record]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        findings.add(place, f"must be one JSON object; {error.msg} at column {error.colno}")
        return
    except RecursionError:
        findings.add(place, f"must be nested at most {MAX_JSON_DEPTH} levels deep")
        return
    except ValueError as error:  # an integer of more than 4,300 digits
        findings.add(place, f"must be one JSON object; {error}")
        return
    yield from _build_record(value, place, findings)


def _build_record(value: object, place: str, findings: Findings) -> Iterator[Record]:
    if not isinstance(value, dict):
        findings.add(place, f"must be a JSON object with named columns, not {type(value).__name__}")
    elif _is_deeper(value, MAX_JSON_DEPTH):
        findings.add(place, f"must be nested at most {MAX_JSON_DEPTH} levels deep")
    else:
        yield Record(place, value)


def _is_deeper(value: object, depth: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    children = value.values() if isinstance(value, dict) else value
    return depth == 0 or any(_is_deeper(child, depth - 1) for child in children)


def _read_json(path: Path, name: str, findings: Findings) -> Iterator[Record]:
    """Read a list of objects; the row's number stands for its line."""
    try:
        with _open_bytes(path, name) as stream:
            content = stream.read(_MAX_JSON_BYTES + 1)
    except OSError as error:
        raise DataError(f"{name}: {error}", "upload the file again, whole.") from error
    if len(content) > _MAX_JSON_BYTES:
        raise DataError(f"{name} must have at most {_MAX_JSON_BYTES} bytes", "use .jsonl, which is read row by row.")
    if not content.strip():
        return
    try:
        value = json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{name} line {line}: must be UTF-8", "save the file in UTF-8.") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{name} line {error.lineno}: must be JSON; {error.msg}", "correct the file.") from error
    except (RecursionError, ValueError) as error:
        raise DataError(f"{name} must be JSON that can be read; {error}", "correct the file.") from error
    if not isinstance(value, list):
        raise DataError(
            f"{name} must be a JSON list of objects, not {type(value).__name__}", "use .jsonl for one object per line."
        )
    for number, item in enumerate(value, 1):
        yield from _build_record(item, f"{name} row {number}", findings)


def _read_csv(path: Path, name: str, findings: Findings, delimiter: str = ",") -> Iterator[Record]:
    lines = _iterate_lines(path, name, findings)
    start, last = 1, 0

    def feed() -> Iterator[str]:
        nonlocal last
        for number, line in lines:
            last = number
            yield line

    # strict: a quote in the wrong place would otherwise swallow rows without a word.
    reader = csv.reader(feed(), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        start = last + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(
                f"{name} line {start}: must be a row of CSV; {error}",
                "quote the field, and double quotes inside of it.",
            ) from error
        place = f"{name} line {start}"
        if not row:
            continue
        if header is None:
            header = _check_header(row, place)
        elif len(row) != len(header):
            findings.add(place, f"must have {len(header)} fields as the header has, not {len(row)}")
        else:
            yield Record(place, dict(zip(header, row, strict=True)))


def _check_header(row: list[str], place: str) -> list[str]:
    names = [name.strip() for name in row]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated or "" in names:
        raise DataError(
            f"{place}: must be a header of different column names, not {show_names(list(map(repr, names)))}",
            "put a header into the first line.",
        )
    return names


def _read_tsv(path: Path, name: str, findings: Findings) -> Iterator[Record]:
    return _read_csv(path, name, findings, "\t")


def _read_text(path: Path, name: str, findings: Findings) -> Iterator[Record]:
    """Each line is a sample in the column `text`; empty ones are left out."""
    for number, line in _iterate_lines(path, name, findings):
        if text := line.strip("\r\n"):
            yield Record(f"{name} line {number}", {"text": text})


def _read_parquet(path: Path, name: str, findings: Findings) -> Iterator[Record]:
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


def _iterate_lines(path: Path, name: str, findings: Findings) -> Iterator[tuple[int, str]]:
    """Yield number and text of each line, with its line end; a line that is too long or not UTF-8 is a finding."""
    number = 0
    with _open_bytes(path, name) as stream:
        while line := _read_line(stream, f"{name} after line {number}"):
            number += 1
            if len(line) > MAX_ROW_BYTES:
                findings.add(f"{name} line {number}", f"must have at most {MAX_ROW_BYTES} bytes")
                while line and not line.endswith(b"\n"):
                    line = _read_line(stream, f"{name} after line {number}")
                continue
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                findings.add(f"{name} line {number}", f"must be UTF-8; byte {error.start + 1} is not")


def _read_line(stream: BinaryIO, place: str) -> bytes:
    try:
        return stream.readline(MAX_ROW_BYTES + 1)
    except OSError as error:
        raise DataError(f"{place}: {error}", "upload the file again, whole.") from error


class _Decompressor(io.RawIOBase):
    """Bytes of a compressed file, ended by an error when they grow out of proportion."""

    def __init__(self, path: Path, name: str, compression: Literal["gzip", "zstd"]) -> None:
        super().__init__()
        self._stream = pyarrow.input_stream(path, compression=compression)
        self._name = name
        self._left = path.stat().st_size * MAX_GROWTH + _CHUNK_BYTES

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        count: int = self._stream.readinto(buffer)
        self._left -= count
        if self._left < 0:
            raise DataError(
                f"{self._name} must not grow to more than {MAX_GROWTH} times its size", "upload it without compression."
            )
        return count

    def close(self) -> None:
        self._stream.close()
        super().close()


def _open_bytes(path: Path, name: str) -> BinaryIO:
    for suffix, compression in COMPRESSIONS.items():
        if name.lower().endswith(suffix):
            return io.BufferedReader(_Decompressor(path, name, compression), _CHUNK_BYTES)
    return path.open("rb", _CHUNK_BYTES)


_READERS: dict[str, Callable[[Path, str, Findings], Iterator[Record]]] = {
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".txt": _read_text,
    ".parquet": _read_parquet,
}

"""Rows of text with separators: .csv and .tsv, a header in the first line.

The end of the name says which separator is expected. Where the first rows don't fit it and fit another, that one is
taken and noted; so is a first line `sep=;`, which Excel writes and understands.
"""

import csv
import io
import itertools
import re
import string
from collections.abc import Iterable, Iterator
from pathlib import Path

from finetune_api import wording
from finetune_api.errors import DataError
from finetune_trainer.data.findings import Findings
from finetune_trainer.data.readers import text_lines
from finetune_trainer.data.readers.record import MAX_COLUMNS, MAX_ROW_BYTES, Record

_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_SNIFFED_LINES = 50
"""Lines by which the separator is told (a choice)."""
_OTHER_SEPARATORS = "^~\x01\x1f\u00a6\u00a7"
"""What some programs put between fields, and no text has in each of its lines."""
_OTHER_QUOTES = "'‘’‚“”„«»`"  # noqa: RUF001 - those that word processors put in the place of double quotes
_BLANKS = f"{string.whitespace}\u00a0\u200b\u200e\u200f\u2060\ufeff"
"""What is left out around the names of columns: also what nobody sees."""
_RULE = re.compile(r"[\s:|]*-{3}[\s:|-]*")
_EXCEL_SEPARATOR = re.compile(r"^\"?sep=(.)\"?\s*$", re.IGNORECASE)

# Python's own limit of 128 KiB would refuse long documents; process-wide, there is no other way.
csv.field_size_limit(MAX_ROW_BYTES)


def read_commas(path: Path, name: str, findings: Findings) -> Iterator[Record]:
    """Read a .csv file."""
    return _read(path, name, findings, ",")


def read_tabs(path: Path, name: str, findings: Findings) -> Iterator[Record]:
    """Read a .tsv file."""
    return _read(path, name, findings, "\t")


def _read(path: Path, name: str, findings: Findings, expected: str) -> Iterator[Record]:
    lines = text_lines.iterate_lines(path, name, findings)
    first = list(itertools.islice(lines, _SNIFFED_LINES))
    if findings.total and first and any(finding.startswith(f"{name} line 1:") for finding in findings.kept):
        # The next line would be taken for the header, and every row after it for a bad one.
        findings.raise_if_any()
    separator = None
    if first and (named := _EXCEL_SEPARATOR.match(first[0][1])):
        expected_too = named.group(1)
        first = first[1:]
        # Programs put their usual one there, whatever the rows have.
        separator = _find_separator([line for _, line in first], expected_too)
    if separator is None:
        separator = _find_separator([line for _, line in first], expected)
    _check_first_rows(first, name, separator)
    if separator != expected:
        found = _SEPARATORS.get(separator, repr(separator))
        findings.note(f"{name} is separated by {found}, not by {_SEPARATORS[expected]}; it is read so")
    yield from _read_rows(itertools.chain(first, lines), name, separator, findings)


def _check_first_rows(lines: list[tuple[int, str]], name: str, separator: str) -> None:
    """Check that the header isn't a title or a comment: one field above rows of several.

    Raises:
        DataError: it is.
    """
    try:
        rows = list(itertools.islice(csv.reader((line for _, line in lines), delimiter=separator), 2))
    except csv.Error:
        return
    counts = [sum(map(bool, map(str.strip, row))) for row in rows]
    other = next((mark for mark in _OTHER_SEPARATORS if all(mark in line for _, line in lines)), None)
    if counts and max(counts) > 0 and counts[0] == 1 and other is not None:
        raise DataError(
            f"{name} must be separated by commas, semicolons, tabs or vertical bars; its fields seem to be by"
            f" {other!r}",
            "write the file with one of those between the fields.",
        )
    if len(counts) == 2 and counts[0] == 1 < counts[1] and rows[0][0].strip():
        raise DataError(
            f"{name} line {lines[0][0]}: must be the header, with a name for each column; it is"
            f" {wording.show_value(rows[0][0])} alone, and the next row has {counts[1]} fields",
            "remove what stands above the header, or put one there that names the columns, such as text,label.",
        )


def _find_separator(lines: list[str], expected: str) -> str:
    """Return the separator the lines fit: the expected one if they do, else another if only one does."""
    fitting = [separator for separator in _SEPARATORS if _is_fitting(lines, separator)]
    return fitting[0] if expected not in fitting and len(fitting) == 1 else expected


def _is_fitting(lines: list[str], separator: str) -> bool:
    """Tell whether the lines are rows of the same number of fields, more than one."""
    counts = []
    try:
        counts = [len(row) for row in csv.reader(io.StringIO("".join(lines), newline=""), delimiter=separator) if row]
    except csv.Error:
        return False
    # The last row may have been cut in the middle of a quoted field.
    whole = counts[:-1] if len(lines) == _SNIFFED_LINES and len(counts) > 1 else counts
    return bool(whole) and whole[0] > 1 and set(whole) == {whole[0]}


class _Feed:
    """Hands lines to the CSV reader, and knows where the row it reads began."""

    def __init__(self, lines: Iterable[tuple[int, str]], name: str) -> None:
        self._lines = iter(lines)
        self._name = name
        self._size = 0
        self.start = 0
        self._is_new = True

    def begin_row(self) -> None:
        self._is_new = True

    def __iter__(self) -> Iterator[str]:
        for number, line in self._lines:
            if self._is_new:
                self.start, self._size, self._is_new = number, 0, False
            self._size += len(line)
            if self._size > MAX_ROW_BYTES:
                raise DataError(
                    f"{self._name} line {self.start}: must be a row of at most {MAX_ROW_BYTES} bytes; a double quote"
                    " may be open there",
                    "close the quote, or double quotes inside of a field.",
                )
            yield line


def _read_rows(lines: Iterable[tuple[int, str]], name: str, separator: str, findings: Findings) -> Iterator[Record]:
    feed = _Feed(lines, name)
    # strict: a quote in the wrong place would otherwise swallow rows without a word.
    reader = csv.reader(feed, delimiter=separator, strict=True)
    header: list[str] | None = None
    raw: list[str] = []
    num_repeated = num_ruled = 0
    has_rows = False
    while True:
        feed.begin_row()
        try:
            row = next(reader)
        except StopIteration:
            if num_repeated:
                findings.note(f"{name}: {num_repeated} lines repeat the header, as in files put together; left out")
            if num_ruled:
                findings.note(f"{name}: the line of dashes below the header, as in tables of Markdown, is left out")
            return
        except csv.Error as error:
            findings.raise_if_any()
            raise DataError(
                f"{name} line {feed.start}: must be a row of CSV; {error}",
                "quote the field, and write a double quote inside of it twice.",
            ) from error
        place = f"{name} line {feed.start}"
        if not row:
            continue
        if header is None:
            header, raw = _check_header(row, place), row
        elif row == raw:
            num_repeated += 1
        elif not has_rows and _RULE.fullmatch("".join(row)):
            num_ruled += 1
        elif len(row) != len(header):
            findings.add(place, _describe_ragged(row, len(header), separator))
        elif any(row):
            has_rows = True
            yield Record(place, dict(zip(header, row, strict=True)))


def _describe_ragged(row: list[str], num_wanted: int, separator: str) -> str:
    reason = f"; quote fields that hold {_SEPARATORS.get(separator, repr(separator))}" if len(row) > num_wanted else ""
    quotes = {field.strip()[0] for field in row if field.strip()} & set(_OTHER_QUOTES)
    if reason and quotes:
        reason = f'; quotes must be double quotes ("), not {min(quotes)}'
    return f"must have {num_wanted} fields as the header has, not {len(row)}{reason}"


def _check_header(row: list[str], place: str) -> list[str]:
    """Return the names of the columns; one without a name, such as pandas' index, is numbered as pandas does.

    Raises:
        DataError: no column has a name, two have the same, or there are too many.
    """
    names = [name.strip(_BLANKS) or f"Unnamed: {index}" for index, name in enumerate(row)]
    if len(names) > MAX_COLUMNS:
        raise DataError(
            f"{place}: must have at most {MAX_COLUMNS} columns, not {len(names)}", "leave out the columns not needed."
        )
    if not any(name.strip() for name in row):
        raise DataError(
            f"{place}: must be a header of column names; all are empty", "put a header into the first line."
        )
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        where = ", ".join(str(index) for index, name in enumerate(names, 1) if name == repeated[0])
        raise DataError(
            f"{place}: must name each column once; {wording.show_names(repeated)} stands in columns {where}",
            "rename or remove one of them.",
        )
    return names

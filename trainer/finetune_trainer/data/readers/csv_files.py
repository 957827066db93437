"""Rows of text with separators: .csv and .tsv, a header in the first line."""

import csv
from collections.abc import Iterator
from pathlib import Path

from finetune_api.errors import DataError
from finetune_trainer.data import findings as wording
from finetune_trainer.data.findings import Findings
from finetune_trainer.data.readers import streams
from finetune_trainer.data.readers.record import MAX_ROW_BYTES, Record

# Python's own limit of 128 KiB would refuse long documents; process-wide, there is no other way.
csv.field_size_limit(MAX_ROW_BYTES)


def read_commas(path: Path, name: str, findings: Findings, delimiter: str = ",") -> Iterator[Record]:
    lines = streams.iterate_lines(path, name, findings)
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
            f"{place}: must be a header of different column names, not {wording.show_names(list(map(repr, names)))}",
            "put a header into the first line.",
        )
    return names


def read_tabs(path: Path, name: str, findings: Findings) -> Iterator[Record]:
    return read_commas(path, name, findings, "\t")

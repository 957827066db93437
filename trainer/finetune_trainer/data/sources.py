"""From fetched files to checked samples: which files hold rows, which columns they have, what a task makes of a row."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from finetune_api.errors import DataError
from finetune_trainer.data import columns as roles_of
from finetune_trainer.data import readers
from finetune_trainer.data.findings import Findings
from finetune_trainer.data.readers import Record
from finetune_trainer.data.samples import Sample
from finetune_trainer.storage import RemoteFile

if TYPE_CHECKING:
    from finetune_trainer.tasks import TaskRows

MAX_ROWS = 5_000_000
"""Most rows of one split (a choice): each is remembered with about 50 bytes, 250 MB in all."""
_PEEKED_ROWS = 100
"""Rows whose columns count as the file's (a choice): JSON rows may leave some out."""


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A fetched file and its name as the user knows it."""

    path: Path
    name: str


@dataclass(frozen=True, slots=True)
class Source:
    """The files of one split and how their rows are read."""

    files: Sequence[LocalFile]
    task: "TaskRows"
    columns: Mapping[str, str]

    def iterate(self) -> Iterator[Sample]:
        """Yield the samples once more, after all of them were found to be right."""
        findings = Findings()
        return _parse_samples(_read_all(self.files, findings), self.task, self.columns, findings)


def select_data_files(files: Sequence[RemoteFile], path: str) -> tuple[list[RemoteFile], list[str]]:
    """Choose the files of a source that hold rows; return them and warnings about the others.

    Names that begin with `.` or `_` are markers by convention and no data.

    Raises:
        DataError: no file has a known format.
    """
    visible = [file for file in files if not file.suffix_name.startswith((".", "_"))]
    known = [file for file in visible if readers.get_format(file.name) is not None]
    if not known:
        raise DataError(
            f"{path} must hold files that end with {', '.join(readers.SUFFIXES)}, optionally followed by .gz or .zst;"
            f" it has {', '.join(file.name for file in files[:5])}",
            "rename the files or name them in the address.",
        )
    ignored = [file.name for file in visible if file not in known]
    warning = f"{path}: {len(ignored)} files of other formats are left out, such as {ignored[0]}" if ignored else ""
    return known, [warning] if warning else []


def open_source(
    files: Sequence[LocalFile], task: "TaskRows", chosen: Mapping[str, str], findings: Findings
) -> tuple[Iterator[Sample], dict[str, str]]:
    """Find the columns from the first rows; return the samples of all rows, and the columns."""
    rows = _read_all(files, findings)
    peeked = list(itertools.islice(rows, _PEEKED_ROWS))
    if not peeked:
        findings.raise_if_any()
    found = list(dict.fromkeys(name for record in peeked for name in record.values))
    columns = roles_of.find_columns(found, chosen, task.SHAPES, files[0].name)
    watched = _watch_columns(rows, found, chosen, columns, task=task, findings=findings)
    return _parse_samples(itertools.chain(peeked, watched), task, columns, findings), columns


def _watch_columns(
    rows: Iterable[Record],
    found: Sequence[str],
    chosen: Mapping[str, str],
    columns: Mapping[str, str],
    *,
    task: "TaskRows",
    findings: Findings,
) -> Iterator[Record]:
    """Pass rows on; note a column that would have had a role, had the first rows had it: it must not be lost."""
    known = set(found)
    for record in rows:
        for name in record.values.keys() - known:
            if not record.values[name]:
                continue
            known.add(name)
            roles = roles_of.find_columns([*found, name], chosen, task.SHAPES, record.place).keys() - columns.keys()
            if roles:
                findings.add(
                    record.place,
                    f"{name} must be a column of the first {_PEEKED_ROWS} rows too, to be read as {', '.join(roles)}",
                )
        yield record


def _parse_samples(
    rows: Iterable[Record], task: "TaskRows", columns: Mapping[str, str], findings: Findings
) -> Iterator[Sample]:
    for row, record in enumerate(rows):
        sample = task.parse_sample(row, record, columns, findings)
        if sample is not None:
            yield sample


def _read_all(files: Sequence[LocalFile], findings: Findings) -> Iterator[Record]:
    count = 0
    for file in files:
        for record in readers.read_records(file.path, file.name, findings):
            count += 1
            if count > MAX_ROWS:
                raise DataError(
                    f"{record.place}: a split must have at most {MAX_ROWS} rows, over all its files",
                    "train on a sample of them.",
                )
            yield record

"""From fetched files to checked samples: which files hold rows, which columns they have, what a task makes of a row."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from finetune_api import wording
from finetune_api.errors import DataError
from finetune_trainer.data import columns as roles_of
from finetune_trainer.data import readers
from finetune_trainer.data.findings import Findings
from finetune_trainer.data.readers import EmptyFileError, Record, signatures
from finetune_trainer.data.samples import Sample
from finetune_trainer.storage import RemoteFile

if TYPE_CHECKING:
    from finetune_trainer.tasks import TaskPreparation

MAX_ROWS = 5_000_000
"""Most rows of one split (a choice): each is remembered with about 50 bytes, 250 MB in all."""
MAX_NAMES = 10_000
"""Most different names of columns over all rows of a split (a choice): JSON rows may each have their own."""
_PEEKED_ROWS = 100
"""Rows whose columns count as the file's (a choice): JSON rows may leave some out."""
_HIDDEN = (".", "_", "~", "#")
"""How names begin that programs leave beside data: markers, checkpoints, locks and copies of editors."""
_WILDCARDS = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A fetched file and its name as the user knows it."""

    path: Path
    name: str


@dataclass(frozen=True, slots=True)
class Source:
    """The files of one split and how their rows are read."""

    split: str
    files: Sequence[LocalFile]
    task: "TaskPreparation"
    columns: Mapping[str, str]
    unused: Sequence[str]
    """Columns with texts that no role takes."""

    def iterate(self) -> Iterator[Sample]:
        """Yield the samples once more, after all of them were found to be right."""
        findings = Findings()
        return _parse_samples(_read_all(self.files, findings, self.split), self.task, self.columns, findings)


def select_data_files(files: Sequence[RemoteFile], path: str, uri: str) -> tuple[list[RemoteFile], list[str]]:
    """Choose the files of a source that hold rows; return them and warnings about the others.

    Args:
        files: that the address stands for.
        path: of the field.
        uri: the address; what it names is read even where its name begins like a hidden one.

    Raises:
        DataError: no file has a known format.
    """
    where = f"{path} ({uri})"
    hidden = [file for file in files if _is_hidden(file, uri)]
    visible = [file for file in files if file not in hidden]
    known = [file for file in visible if readers.get_format(file.name) is not None]
    if not known:
        names = [file.name for file in files]
        raise DataError(
            f"{where} must hold files that end with {', '.join(readers.SUFFIXES)}, optionally followed by .gz or .zst;"
            f" it has {wording.show_names(names)}",
            signatures.advise([file.name for file in visible] or names),
        )
    warnings = []
    if ignored := [file.name for file in visible if file not in known]:
        warnings.append(f"{where}: {len(ignored)} files of other formats are left out, such as {ignored[0]}")
    if left := [file.name for file in hidden if readers.get_format(file.name) is not None]:
        warnings.append(
            f"{where}: {len(left)} files are left out whose path has a segment that begins with . _ ~ or #, such as"
            f" {left[0]}"
        )
    return known, warnings


def _is_hidden(file: RemoteFile, uri: str) -> bool:
    """Tell whether a segment of the path below the address begins as hidden ones do, unless the address names it so."""
    segments = file.name.split("/")
    named = uri.rstrip("/").split("/")[-len(segments) :]
    is_spelled = not uri.endswith("/") and (_WILDCARDS & set(uri) or uri.endswith(f"/{file.name}"))
    return any(
        segment.startswith(_HIDDEN) and not (is_spelled and pattern[:1] == segment[:1])
        for segment, pattern in itertools.zip_longest(segments, named if is_spelled else (), fillvalue="")
    )


def open_source(
    split: str,
    files: Sequence[LocalFile],
    task: "TaskPreparation",
    chosen: Mapping[str, str],
    findings: Findings,
    *,
    train: Source | None = None,
) -> tuple[Iterator[Sample], Source]:
    """Find the columns from the first rows; return the samples of all rows, and the source to read them from again.

    Args:
        split: its name.
        files: of the split.
        task: whose rows they are.
        chosen: `spec.data[0].columns`.
        findings: takes what is wrong with rows.
        train: the source of the training rows, whose columns the others must have.

    Raises:
        DataError: a file can't be read, or columns are missing.
    """
    columns: dict[str, str] = dict(train.columns) if train else {}
    optional = {role for shape in task.SHAPES for role in shape.optional}
    first = train.files[0].name if train else files[0].name
    known: set[str] = set()
    unused: list[str] = []

    def check(file: LocalFile, peeked: Sequence[Record]) -> None:
        found = list(dict.fromkeys(name for record in peeked for name in record.values))
        rows = [record.values for record in peeked]
        if columns:
            roles_of.check_same(found, columns, optional, file.name, first)
        else:
            columns.update(_find_columns(found, chosen, task, file.name, rows))
            for note in [] if chosen else roles_of.describe_twins(found, columns):
                findings.note(note)
        # Later files are watched for columns that would have had a role.
        known.update(known or found)
        unused.extend(name for name in roles_of.find_unused(columns, rows) if name not in unused)

    rows = _read_all(files, findings, split, check)
    watched = _watch_columns(rows, known, chosen, columns, task=task, findings=findings)
    return _parse_samples(watched, task, columns, findings), Source(split, files, task, columns, unused)


def _find_columns(
    found: Sequence[str],
    chosen: Mapping[str, str],
    task: "TaskPreparation",
    source: str,
    rows: Sequence[Mapping[str, object]],
) -> dict[str, str]:
    try:
        return roles_of.find_columns(found, chosen, task.SHAPES, source)
    except DataError:
        if readers.has_header(source):
            roles_of.check_header(found, rows, source)
        raise


def _watch_columns(
    rows: Iterable[Record],
    known: set[str],
    chosen: Mapping[str, str],
    columns: Mapping[str, str],
    *,
    task: "TaskPreparation",
    findings: Findings,
) -> Iterator[Record]:
    """Pass rows on; note a column that would have had a role, had the first rows had it: it must not be lost."""
    for record in rows:
        for name in record.values.keys() - known:
            if not record.values[name]:
                continue
            known.add(name)
            if len(known) > MAX_NAMES:
                raise DataError(
                    f"{record.place}: the rows of a split must have at most {MAX_NAMES} different columns",
                    "give what differs from row to row as values, not as names.",
                )
            roles = roles_of.find_columns([*known], chosen, task.SHAPES, record.place).keys() - columns.keys()
            if roles:
                findings.add(
                    record.place,
                    f"{name} must be a column of the first {_PEEKED_ROWS} rows too, to be read as {', '.join(roles)}",
                )
        yield record


def _parse_samples(
    rows: Iterable[Record], task: "TaskPreparation", columns: Mapping[str, str], findings: Findings
) -> Iterator[Sample]:
    for row, record in enumerate(rows):
        sample = task.parse_sample(row, record, columns, findings)
        if sample is not None:
            yield sample


def _read_all(
    files: Sequence[LocalFile],
    findings: Findings,
    split: str,
    check: Callable[[LocalFile, Sequence[Record]], None] | None = None,
) -> Iterator[Record]:
    """Yield the rows of all files.

    Args:
        files: of the split.
        findings: takes what is wrong with rows.
        split: its name.
        check: is shown the first rows of each file before one of them is yielded.
    """
    count = 0
    num_empty = 0
    for file in files:
        rows = readers.read_records(file.path, file.name, findings)
        try:
            peeked = list(itertools.islice(rows, _PEEKED_ROWS))
        except EmptyFileError as error:
            # Writers of many parts leave some of them without a row.
            num_empty += 1
            if num_empty == len(files):
                raise _build_empty(error, split) from error
            findings.note(f"{file.name} has no rows")
            continue
        if check is not None and peeked:
            check(file, peeked)
        for record in itertools.chain(peeked, rows):
            count += 1
            if count > MAX_ROWS:
                raise DataError(
                    f"{record.place}: a split must have at most {MAX_ROWS} rows, over all its files",
                    "train on a sample of them.",
                )
            yield record


def _build_empty(error: EmptyFileError, split: str) -> DataError:
    other = "" if split == "train" else f", or leave spec.data[0].{split} out"
    return DataError(error.message, f"give a file with rows{other}.")

"""From fetched files to checked rows in three splits: columns, labels, and the split where no file is given.

The files are read twice. The first pass checks every row and remembers digests, label and line; the second, after the
split was decided from those, yields the samples to be tokenized. No more than a few rows are in memory. Every error of
every row in every file is collected before the stage ends with them.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy
from numpy.typing import NDArray

from finetune_api import artifacts
from finetune_api.errors import DataError
from finetune_api.kinds.finetunejob.spec import FineTuneJobSpec
from finetune_trainer.data import readers
from finetune_trainer.data import samples as dataset
from finetune_trainer.data.fingerprints import Facts, Indices, Ledger
from finetune_trainer.data.readers import Findings, Record
from finetune_trainer.data.samples import Sample
from finetune_trainer.data.splits import split_rows
from finetune_trainer.storage import RemoteFile
from finetune_trainer.tasks import TaskData

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
    task: TaskData
    columns: Mapping[str, str]

    def iterate(self) -> Iterator[Sample]:
        """Yield the samples once more, after all of them were found to be right."""
        findings = Findings()
        return _parse_samples(_read_all(self.files, findings), self.task, self.columns, findings)


@dataclass(slots=True)
class Splits:
    """The checked rows of a run: what is remembered of them, and where their text is read again."""

    sources: Sequence[Source]
    """In the order of the rows in `facts`."""
    facts: Facts
    assigned: NDArray[numpy.int8]
    """Index in `artifacts.SPLITS` of each row."""
    columns: dict[str, str]
    labels: list[str]
    file_format: str
    warnings: list[str] = field(default_factory=list)

    @property
    def rows(self) -> dict[str, Indices]:
        """The rows of each split, in the order of their source."""
        return {split: numpy.flatnonzero(self.assigned == index) for index, split in enumerate(artifacts.SPLITS)}

    def iterate(self) -> Iterator[tuple[str, Sample]]:
        """Yield all samples with the names of their splits, from the files once more."""
        samples = itertools.chain.from_iterable(source.iterate() for source in self.sources)
        for index, sample in zip(self.assigned.tobytes(), samples, strict=True):
            yield artifacts.SPLITS[index], sample


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


def read_splits(spec: FineTuneJobSpec, task: TaskData, files: Mapping[str, Sequence[LocalFile]]) -> Splits:
    """Read and check all rows, and hold out what has no file of its own.

    Args:
        spec: of the run.
        task: whose rows they are.
        files: by split; `train` is there.

    Raises:
        BadRowsError: rows are wrong, all of them listed.
        DataError: a file, the columns, the labels or the split are.
    """
    findings = Findings()
    ledger = Ledger()
    sources: dict[str, Source] = {}
    starts: dict[str, int] = {}
    columns, labels = spec.data[0].columns, list[str]()
    for split in artifacts.SPLITS:
        if split not in files:
            continue
        samples, columns = _open_source(files[split], task, columns, findings)
        sources[split], starts[split] = Source(files[split], task, columns), len(ledger)
        known = frozenset(labels)
        for sample in samples:
            if known and sample.label not in known:
                dataset.add_unknown_label(sample, labels, findings)
            ledger.add(sample)
        # Labels of rows that were refused would be reported as unknown in the other splits.
        if task.IS_LABELLED and split == "train" and not findings.total:
            labels = dataset.sort_labels(ledger.label_names, ledger.count_labels(), files["train"][0].name)
    findings.raise_if_any()
    facts = ledger.close()
    assigned = _assign_rows(spec, facts, starts, stratify=spec.split.stratify and task.IS_LABELLED)
    file_format = readers.get_format(files["train"][0].name) or ""
    splits = Splits(list(sources.values()), facts, assigned, dict(columns), labels, file_format)
    splits.warnings = _warn_about_labels(facts.count_labels(splits.rows["train"]), labels)
    return splits


def _open_source(
    files: Sequence[LocalFile], task: TaskData, chosen: Mapping[str, str], findings: Findings
) -> tuple[Iterator[Sample], dict[str, str]]:
    """Find the columns from the first rows; return the samples of all rows, and the columns."""
    rows = _read_all(files, findings)
    peeked = list(itertools.islice(rows, _PEEKED_ROWS))
    if not peeked:
        findings.raise_if_any()
    found = list(dict.fromkeys(name for record in peeked for name in record.values))
    columns = dataset.find_columns(found, chosen, task.SHAPES, files[0].name)
    watched = _watch_columns(rows, found, chosen, columns, task=task, findings=findings)
    return _parse_samples(itertools.chain(peeked, watched), task, columns, findings), columns


def _watch_columns(
    rows: Iterable[Record],
    found: Sequence[str],
    chosen: Mapping[str, str],
    columns: Mapping[str, str],
    *,
    task: TaskData,
    findings: Findings,
) -> Iterator[Record]:
    """Pass rows on; note a column that would have had a role, had the first rows had it: it must not be lost."""
    known = set(found)
    for record in rows:
        for name in record.values.keys() - known:
            if not record.values[name]:
                continue
            known.add(name)
            roles = dataset.find_columns([*found, name], chosen, task.SHAPES, record.place).keys() - columns.keys()
            if roles:
                findings.add(
                    record.place,
                    f"{name} must be a column of the first {_PEEKED_ROWS} rows too, to be read as {', '.join(roles)}",
                )
        yield record


def _parse_samples(
    rows: Iterable[Record], task: TaskData, columns: Mapping[str, str], findings: Findings
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


def _assign_rows(
    spec: FineTuneJobSpec, facts: Facts, starts: Mapping[str, int], *, stratify: bool
) -> NDArray[numpy.int8]:
    """Return the split of each row, as its index in `artifacts.SPLITS`."""
    assigned = numpy.empty(len(facts.numbers), numpy.int8)
    for split, start in starts.items():
        assigned[start:] = artifacts.SPLITS.index(split)
    shares = {
        split: float(getattr(spec.split, split))
        for split in artifacts.SPLITS[1:]
        if split not in starts and float(getattr(spec.split, split)) > 0
    }
    if shares:
        num_train = int((assigned == 0).sum())
        labels = facts.labels[:num_train] if stratify else None
        held_out = split_rows(facts.near[:num_train], labels, shares, seed=spec.training.seed)
        numbers = [artifacts.SPLITS.index(name) for name in ("train", *shares)]
        assigned[:num_train] = numpy.array(numbers, numpy.int8)[held_out]
    return assigned


def _warn_about_labels(counts: Mapping[str, int], labels: Sequence[str]) -> list[str]:
    missing = sorted(set(labels) - set(counts))
    return [f"no training row is left with label {', '.join(missing)}: all went to other splits"] if missing else []

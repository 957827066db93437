"""From fetched files to checked samples in three splits: columns, labels, and the split where no file is given.

Every error of every row in every file is collected before the stage ends with them.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from finetune_api import artifacts
from finetune_api.errors import DataError
from finetune_api.spec import FineTuneJobSpec
from finetune_trainer import dataset, records
from finetune_trainer.dataset import Sample
from finetune_trainer.records import Findings, Record
from finetune_trainer.storage import RemoteFile
from finetune_trainer.tasks import TaskData

_PEEKED_ROWS = 100
"""Rows whose columns count as the file's (a choice): JSON rows may leave some out."""


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A fetched file and its name as the user knows it."""

    path: Path
    name: str


@dataclass(slots=True)
class Splits:
    """The checked samples of a run."""

    samples: dict[str, list[Sample]]
    columns: dict[str, str]
    labels: list[str]
    file_format: str
    warnings: list[str] = field(default_factory=list)


def select_data_files(files: Sequence[RemoteFile], path: str) -> tuple[list[RemoteFile], list[str]]:
    """Choose the files of a source that hold rows; return them and warnings about the others.

    Names that begin with `.` or `_` are markers by convention and no data.

    Raises:
        DataError: no file has a known format.
    """
    visible = [file for file in files if not file.suffix_name.startswith((".", "_"))]
    known = [file for file in visible if records.get_format(file.name) is not None]
    if not known:
        raise DataError(
            f"{path} must hold files that end with {', '.join(records.SUFFIXES)}, optionally followed by .gz or .zst;"
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
    train, columns = _read_source(files["train"], task, spec.data[0].columns, findings)
    num_bad = findings.total
    samples = {"train": train}
    for split in artifacts.SPLITS[1:]:
        if split in files:
            samples[split], _ = _read_source(files[split], task, columns, findings)
    labels: list[str] = []
    # Labels of rows that were refused would be reported as unknown below.
    if task.IS_LABELLED and train and not num_bad:
        labels = dataset.build_label_set(train, files["train"][0].name)
        for members in samples.values():
            dataset.check_labels(members, labels, findings)
    findings.raise_if_any()
    shares = {
        split: float(getattr(spec.split, split))
        for split in artifacts.SPLITS[1:]
        if split not in files and float(getattr(spec.split, split)) > 0
    }
    if shares:
        stratify = spec.split.stratify and task.IS_LABELLED
        samples |= dataset.split_samples(train, shares, seed=spec.training.seed, stratify=stratify)
    splits = {split: samples.get(split, []) for split in artifacts.SPLITS}
    warnings = _warn_about_labels(splits["train"], labels)
    return Splits(splits, columns, labels, records.get_format(files["train"][0].name) or "", warnings)


def _read_source(
    files: Sequence[LocalFile], task: TaskData, chosen: Mapping[str, str], findings: Findings
) -> tuple[list[Sample], dict[str, str]]:
    rows = _read_all(files, findings)
    peeked = list(itertools.islice(rows, _PEEKED_ROWS))
    if not peeked:
        findings.raise_if_any()
    found = list(dict.fromkeys(name for record in peeked for name in record.values))
    columns = dataset.find_columns(found, chosen, task.SHAPES, files[0].name)
    samples = (
        task.parse_sample(row, record, columns, findings) for row, record in enumerate(itertools.chain(peeked, rows))
    )
    return [sample for sample in samples if sample is not None], columns


def _read_all(files: Sequence[LocalFile], findings: Findings) -> Iterator[Record]:
    for file in files:
        yield from records.read_records(file.path, file.name, findings)


def _warn_about_labels(train: Sequence[Sample], labels: Sequence[str]) -> list[str]:
    missing = sorted(set(labels) - {sample.label for sample in train})
    return [f"no training row is left with label {', '.join(missing)}: all went to other splits"] if missing else []

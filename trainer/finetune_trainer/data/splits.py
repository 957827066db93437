"""The checked rows of a run in three splits: read from files, or held out where no file is given.

The files are read twice. The first pass checks every row and remembers digests, label and line; the second, after the
split was decided from those, yields the samples to be tokenized. No more than a few rows are in memory. Every error of
every row in every file is collected before the stage ends with them.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy
from numpy.typing import NDArray

from finetune_api import artifacts, wording
from finetune_api.kinds.finetunejob.spec import FineTuneJobSpec
from finetune_trainer.data import holdout, readers, sources
from finetune_trainer.data import labels as labels_of
from finetune_trainer.data.findings import Findings
from finetune_trainer.data.fingerprints import Facts, Indices, Ledger
from finetune_trainer.data.samples import Sample
from finetune_trainer.data.sources import LocalFile, Source

if TYPE_CHECKING:
    from finetune_trainer.tasks import TaskPreparation


@dataclass(slots=True)
class Splits:
    """The checked rows of a run: what is remembered of them, and where their text is read again."""

    sources: Sequence[Source]
    """In the order of the rows in `facts`."""
    facts: Facts
    assigned: NDArray[numpy.int8]
    """Index in `artifacts.SPLITS` of each row."""
    columns: dict[str, str]
    unused: list[str]
    """Columns with texts that no role takes."""
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


def read_splits(spec: FineTuneJobSpec, task: "TaskPreparation", files: Mapping[str, Sequence[LocalFile]]) -> Splits:
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
    opened: dict[str, Source] = {}
    starts: dict[str, int] = {}
    labels = list[str]()
    for split in artifacts.SPLITS:
        if split not in files:
            continue
        samples, source = sources.open_source(
            split, files[split], task, spec.data[0].columns, findings, train=opened.get("train")
        )
        opened[split], starts[split] = source, len(ledger)
        known = frozenset(labels)
        for sample in samples:
            for label in sample.labels if known else ():
                if label not in known:
                    labels_of.add_unknown_label(sample, label, labels, findings)
            ledger.add(sample)
        # Labels of rows that were refused would be reported as unknown in the other splits.
        if ledger.label_names and split == "train" and not findings.total:
            labels = labels_of.sort_labels(ledger.label_names, ledger.count_labels(), files["train"][0].name)
    findings.raise_if_any()
    facts = ledger.close()
    assigned = _assign_rows(spec, facts, starts, stratify=spec.split.stratify and bool(labels))
    file_format = readers.get_format(files["train"][0].name) or ""
    unused = list(dict.fromkeys(name for source in opened.values() for name in source.unused))
    splits = Splits(list(opened.values()), facts, assigned, dict(opened["train"].columns), unused, labels, file_format)
    counts = facts.count_labels(splits.rows["train"])
    splits.warnings = [
        *findings.notes,
        *_warn_about_columns(splits),
        *labels_of.check_labels(counts),
        *_warn_about_labels(counts, labels),
        *_warn_about_absent(splits),
    ]
    return splits


def _warn_about_columns(splits: Splits) -> list[str]:
    if not splits.unused:
        return []
    taken = ", ".join(f"{role} is {wording.show_value(column)}" for role, column in splits.columns.items())
    return [f"columns with texts that are not read: {wording.show_names(splits.unused)}; {taken}"]


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
        held_out = holdout.split_rows(facts.near[:num_train], labels, shares, seed=spec.training.seed)
        numbers = [artifacts.SPLITS.index(name) for name in ("train", *shares)]
        assigned[:num_train] = numpy.array(numbers, numpy.int8)[held_out]
    return assigned


def _warn_about_absent(splits: Splits) -> list[str]:
    """Name the labels that no row of a split has: scikit-learn's averages over labels leave them out."""
    absent = {
        split: [label for label in splits.labels if label not in present]
        for split in artifacts.SPLITS[1:]
        if (present := splits.facts.count_labels(splits.rows[split]))
    }
    return [
        f"no {split} row has label {wording.show_names(labels)}; macro figures count such a label only where it is"
        " predicted"
        for split, labels in absent.items()
        if labels
    ]


def _warn_about_labels(counts: Mapping[str, int], labels: Sequence[str]) -> list[str]:
    missing = sorted(set(labels) - set(counts))
    return [f"no training row is left with label {', '.join(missing)}: all went to other splits"] if missing else []

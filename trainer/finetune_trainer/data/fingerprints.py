"""What is remembered of every checked row while its text stays on disk: about 50 bytes.

Two digests tell equal rows, a number the label, another the line; from these the split, the duplicates and the
overlaps are found without reading a text again. Rows are counted in the order in which they were read, over all
sources, the training rows first.
"""

import hashlib
from array import array
from dataclasses import dataclass
from typing import TypeAlias

import numpy
from numpy.typing import NDArray

from finetune_trainer.data.labels import MAX_LABELS
from finetune_trainer.data.samples import Sample

Indices: TypeAlias = NDArray[numpy.int64]

DIGEST_BYTES = 16
"""Of a SHA-256: among 5 million rows two different ones collide with a probability below 1e-25."""
_OTHER = -1


class Ledger:
    """Takes the rows as they are read."""

    def __init__(self) -> None:
        self._exact = bytearray()
        self._near = bytearray()
        self._labels = array("i")
        self._numbers = array("q")
        self._files: list[tuple[int, str]] = []
        self._codes: dict[str, int] = {}
        self._other_labels = bytearray()

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def label_names(self) -> list[str]:
        """The labels seen so far, as they came; not more than `MAX_LABELS`, of the others only the number is known."""
        return list(self._codes)

    def count_labels(self) -> int:
        """Count the different labels, also those that are not kept by name."""
        return len(self._codes) + int(_group(self._other_labels).max(initial=-1)) + 1

    def add(self, sample: Sample) -> None:
        """Remember a row."""
        self._exact += digest_parts(sample)
        self._near += digest_text(sample)
        codes = [self._find_code(label) for label in sample.labels]
        # Where words have labels, their row has none of its own.
        self._labels.append(codes[0] if len(codes) == 1 else _OTHER)
        file, _, number = sample.place.rpartition(" ")
        if not self._files or self._files[-1][1] != file:
            self._files.append((len(self._numbers), file))
        self._numbers.append(int(number))

    def _find_code(self, label: str) -> int:
        code = self._codes.get(label)
        if code is None and len(self._codes) < MAX_LABELS:
            code = self._codes[label] = len(self._codes)
        if code is None:
            self._other_labels += hashlib.sha256(label.encode()).digest()[:DIGEST_BYTES]
            return _OTHER
        return code

    def close(self) -> "Facts":
        """Return what there is to know about the rows; the ledger takes no more."""
        exact = _group(self._exact)
        self._exact = bytearray()
        near = _group(self._near)
        self._near = bytearray()
        names = sorted(self._codes)
        # By name, so that the order in which labels come decides nothing; the last number is that of the unnamed.
        numbers = numpy.array([*map(names.index, self._codes), _OTHER], numpy.int32)
        labels = numbers[numpy.frombuffer(self._labels, numpy.int32)]
        return Facts(exact, near, labels, names, self._numbers, self._files)


@dataclass(frozen=True, slots=True)
class Facts:
    """The rows that were read, n in all."""

    exact: NDArray[numpy.int32]
    """n group numbers: equal where roles and texts are."""
    near: NDArray[numpy.int32]
    """n group numbers: equal where the texts are but for blanks and case. Groups are numbered as they first appear."""
    labels: NDArray[numpy.int32]
    """n indices into `label_names`; -1 for rows that have not one label, and for labels beyond those that are kept."""
    label_names: list[str]
    """In the order of their letters."""
    numbers: "array[int]"
    """n lines, or rows of a parquet file."""
    files: list[tuple[int, str]]
    """First row of each file and what its places begin with."""

    def find_place(self, row: int) -> str:
        """Return file and line of a row."""
        file = next(name for start, name in reversed(self.files) if start <= row)
        return f"{file} {self.numbers[row]}"

    def count_repeated(self, rows: Indices) -> tuple[int, int]:
        """Count the rows that repeat an earlier one of these rows: exactly, and but for blanks and case."""
        exact, near = (len(rows) - int(_mark(groups, rows).sum()) for groups in (self.exact, self.near))
        return exact, near

    def count_labels(self, rows: Indices) -> dict[str, int]:
        """Count the rows of each label, by its name; rows without one are left out."""
        found = self.labels[rows]
        counts = numpy.bincount(found[found != _OTHER], minlength=len(self.label_names)).tolist()
        return {name: count for name, count in zip(self.label_names, counts, strict=True) if count}

    def find_conflicts(self, rows: Indices) -> Indices:
        """Return those of the rows whose text stands there before with another label."""
        groups, labels = self.near[rows], self.labels[rows]
        firsts = numpy.empty(len(self.near), numpy.int32)
        # Where a group is written several times the last one stays: backwards, that is its first row.
        firsts[groups[::-1]] = labels[::-1]
        conflicts: Indices = rows[labels != firsts[groups]]
        return conflicts

    def find_shared(self, rows: Indices, others: Indices) -> Indices:
        """Return those of the rows whose text stands among the others."""
        shared: Indices = rows[_mark(self.near, others)[self.near[rows]]]
        return shared


def _mark(groups: NDArray[numpy.int32], rows: Indices) -> NDArray[numpy.bool]:
    """Tell of each group whether it has one of the rows: a table takes less memory than sorting, or a set."""
    marked = numpy.zeros(len(groups), bool)
    marked[groups[rows]] = True
    return marked


def digest_parts(sample: Sample) -> bytes:
    """Return what tells exactly equal samples: a digest of roles and texts, without the label."""
    digest = hashlib.sha256()
    for part in sample.parts:
        text = part.text.encode()
        digest.update(f"{part.role} {len(text)} ".encode())
        digest.update(text)
    return digest.digest()[:DIGEST_BYTES]


def digest_text(sample: Sample) -> bytes:
    """Return what tells equal samples: a digest of the texts, without the label, blanks and case made equal."""
    digest = hashlib.sha256()
    for part in sample.parts:
        digest.update(" ".join(part.text.casefold().split()).encode())
        digest.update(b"\x00")
    return digest.digest()[:DIGEST_BYTES]


def _group(digests: bytearray) -> NDArray[numpy.int32]:
    """Number equal digests alike, in the order of their first appearance."""
    halves = numpy.frombuffer(digests, numpy.uint64).reshape(-1, 2)
    # Stable, so that the first of equal digests is the one that was read first.
    order = numpy.lexsort((halves[:, 1], halves[:, 0]))
    halves = halves[order]
    is_new = numpy.ones(len(order), bool)
    is_new[1:] = (halves[1:] != halves[:-1]).any(axis=1)
    del halves
    rank = numpy.empty(int(is_new.sum()), numpy.int32)
    rank[numpy.argsort(order[is_new])] = numpy.arange(len(rank), dtype=numpy.int32)
    groups = numpy.empty(len(order), numpy.int32)
    groups[order] = rank[numpy.cumsum(is_new) - 1]
    return groups

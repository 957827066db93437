"""Which training rows are held out for validation and test: a pure function of groups, labels, shares and seed.

Rows of one group, which have the same text, stay on one side. With labels each label is split on its own, rounded so
that the shares of the whole come out, and keeps a row for training. The same rows and seed give the same split.
"""

import random
from array import array
from collections.abc import Mapping

import numpy
from numpy.typing import NDArray

from finetune_api.errors import DataError

TRAIN = 0
"""Number of the split that gets what is not held out; the others follow in the order of the shares."""


def split_rows(
    groups: NDArray[numpy.int32], labels: NDArray[numpy.int32] | None, fractions: Mapping[str, float], *, seed: int
) -> NDArray[numpy.int8]:
    """Hold out shares of the rows.

    Args:
        groups: of n rows, numbered from 0 as they first appear.
        labels: of n rows, to split by, in the order of their numbers; a group has its first row's. None: all as one.
        fractions: share of each split to hold out, such as `{"validation": 0.1}`.
        seed: of the order.

    Returns:
        n numbers: `TRAIN`, or the place of a split in `fractions`, from 1.

    Raises:
        DataError: a split would be left without a row.
    """
    sizes = numpy.bincount(groups)
    chosen = numpy.full(len(sizes), TRAIN, numpy.int8)
    order = random.Random(seed)  # noqa: S311 - a split must be repeatable, not secret
    carried = dict.fromkeys(fractions, 0.0)
    for stratum in _build_strata(groups, labels, len(sizes)):
        members = array("q", stratum.tobytes())
        order.shuffle(members)
        num_rows = int(sizes[stratum].sum())
        # Nobody can be taught, or asked for, a label of which no training row is left.
        if labels is not None:
            members = members[:-1]
        for number, (name, fraction) in enumerate(fractions.items(), 1):
            # What rounding took from one label is given back with the next.
            wanted = fraction * num_rows + carried[name]
            taken, members, num_taken = _take_groups(members, sizes, wanted)
            chosen[taken] = number
            carried[name] = wanted - num_taken
    splits: NDArray[numpy.int8] = chosen[groups]
    counts = numpy.bincount(splits, minlength=len(fractions) + 1)
    for number, name in enumerate(["train", *fractions]):
        if not counts[number]:
            blamed = name if name in fractions else next(iter(fractions))
            num_labels = 0 if labels is None else len(numpy.unique(labels))
            reason = f": each of the {num_labels} labels keeps a row for training" if num_labels > 1 else ""
            raise DataError(
                f"spec.split.{blamed} ({fractions[blamed]:g}) must leave a row in every part; of {len(groups)} rows,"
                f" {len(sizes)} of them different, {name} would get 0 rows{reason}",
                "give more rows, another share, or files of their own for validation and test.",
            )
    return splits


def _build_strata(
    groups: NDArray[numpy.int32], labels: NDArray[numpy.int32] | None, num_groups: int
) -> list[NDArray[numpy.int64]]:
    """Return the groups to split together, in the order of their labels."""
    if labels is None:
        return [numpy.arange(num_groups)]
    firsts = numpy.empty(num_groups, numpy.int64)
    # Where a group is written several times the last one stays: backwards, that is its first row.
    firsts[groups[::-1]] = numpy.arange(len(groups))[::-1]
    group_labels = labels[firsts]
    return [numpy.flatnonzero(group_labels == label) for label in numpy.unique(group_labels)]


def _take_groups(
    members: "array[int]", sizes: NDArray[numpy.int64], wanted: float
) -> tuple["array[int]", "array[int]", int]:
    """Take whole groups up to the rounded number of rows; return them, the groups that stay, and the rows taken."""
    taken, kept = array("q"), array("q")
    num_taken = 0
    for index, group in enumerate(members):
        if num_taken + 1 > wanted + 0.5:
            kept += members[index:]
            break
        size = int(sizes[group])
        if num_taken + size <= wanted + 0.5:
            taken.append(group)
            num_taken += size
        else:
            kept.append(group)
    return taken, kept, num_taken

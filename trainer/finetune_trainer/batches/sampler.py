"""Which rows make an optimizer step, which of them a rank takes, and how they are cut into micro-batches. Pure numbers.

A step always holds the `batchSize` rows the order gives it; how a rank cuts its share into micro-batches changes memory
and speed, never the gradient. Packed rows lie one after another without padding, so a micro-batch is a bin of tokens;
padded ones are as long as their longest, so rows of like length belong together.
"""

import bisect
import math
from collections.abc import Iterator, Sequence

import numpy

_GROUP_STEPS = 50
"""Optimizer steps whose rows are sorted by length together where rows are padded (a choice): little padding, and the
order stays random."""

_MOST_PADDING = 0.03
"""Share of a padded micro-batch that may be padding (a choice): a further pass through the model costs less."""


def build_order(lengths: Sequence[int], batch_size: int, seed: int, epoch: int, *, is_packed: bool) -> list[int]:
    """Shuffle rows; the step with the longest row comes first, so that a run too large fails in its first minute.

    Args:
        lengths: tokens of each row.
        batch_size: rows per optimizer step over all ranks.
        seed: of the run.
        epoch: from 0.
        is_packed: rows are not padded. Padded ones are grouped so that each step holds rows of similar length.
    """
    shuffled = numpy.random.default_rng((seed, epoch)).permutation(len(lengths))
    size = batch_size * (1 if is_packed else min(_GROUP_STEPS, max(1, len(lengths) // (batch_size * 4))))
    groups = [sorted(shuffled[i : i + size], key=lambda row: -lengths[row]) for i in range(0, len(shuffled), size)]
    rows = [int(row) for group in groups for row in group]
    steps = [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]
    # An incomplete step must stay last: anywhere else it would shift the borders of all later ones.
    last = [steps.pop()] if steps and len(steps[-1]) < batch_size else []
    order = [steps[i] for i in numpy.random.default_rng((seed, epoch, 1)).permutation(len(steps))]
    if order:
        longest = max(range(len(order)), key=lambda i: max(lengths[row] for row in order[i]))
        order.insert(0, order.pop(longest))
    return [row for step in order + last for row in step]


def share_rows(lengths: Sequence[int], num_ranks: int) -> list[list[int]]:
    """Deal rows to ranks so that each gets about as many tokens; the longest first, to whoever has least.

    Returns:
        Positions in `lengths` by rank; empty lists only where there are fewer rows than ranks.
    """
    shares: list[list[int]] = [[] for _ in range(num_ranks)]
    loads = [0] * num_ranks
    for position in sorted(range(len(lengths)), key=lambda position: -lengths[position]):
        rank = min(range(num_ranks), key=lambda rank: (loads[rank], len(shares[rank])))
        shares[rank].append(position)
        loads[rank] += lengths[position]
    return shares


def cut_micro_batches(lengths: Sequence[int], max_tokens: int, *, is_packed: bool) -> list[list[int]]:
    """Cut rows into micro-batches of at most `max_tokens`, padding included; a longer row is one by itself.

    Packed rows are placed best-fit decreasing: each, the longest first, into the fullest micro-batch with room for it.

    Returns:
        Positions in `lengths`, the micro-batch with the most tokens first.
    """
    ordered = sorted(range(len(lengths)), key=lambda position: -lengths[position])
    return _pack(ordered, lengths, max_tokens) if is_packed else _group(ordered, lengths, max_tokens)


def _pack(ordered: Sequence[int], lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    bins: list[list[int]] = []
    rooms: list[tuple[int, int]] = []  # what is free in a bin, and its index; sorted
    for position in ordered:
        length = lengths[position]
        place = bisect.bisect_left(rooms, (length, -1))
        if place == len(rooms):
            bins.append([position])
            bisect.insort(rooms, (max_tokens - length, len(bins) - 1))
        else:
            room, index = rooms.pop(place)
            bins[index].append(position)
            bisect.insort(rooms, (room - length, index))
    return sorted(bins, key=lambda positions: -sum(lengths[position] for position in positions))


def _group(ordered: Sequence[int], lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    groups: list[list[int]] = []
    num_real = 0
    for position in ordered:
        num_real += lengths[position]
        num_padded = (len(groups[-1]) + 1) * lengths[groups[-1][0]] if groups else 0
        if groups and num_padded <= max_tokens and num_padded - num_real <= _MOST_PADDING * num_padded:
            groups[-1].append(position)
        else:
            groups.append([position])
            num_real = lengths[position]
    return groups


class StepOrder:
    """Gives, step by step and epoch by epoch, the rows one rank takes of each optimizer step.

    Args:
        lengths: tokens of each row.
        batch_size: rows per optimizer step over all ranks.
        seed: of the run.
        rank: this one, from 0.
        num_ranks: of the run.
        is_packed: rows are not padded.
        first_step: steps that were made already. Those of the epoch they end in are given without rows, since whoever
            goes on passes over them: the place in the order is found without dealing out the rows before it.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        batch_size: int,
        seed: int,
        *,
        rank: int,
        num_ranks: int,
        is_packed: bool,
        first_step: int = 0,
    ) -> None:
        self._lengths, self._batch_size, self._seed = lengths, batch_size, seed
        self._rank, self._num_ranks, self._is_packed = rank, num_ranks, is_packed
        self._epoch, self._num_made = divmod(first_step, len(self))

    def __len__(self) -> int:
        return math.ceil(len(self._lengths) / self._batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        order = build_order(self._lengths, self._batch_size, self._seed, self._epoch, is_packed=self._is_packed)
        num_made, self._num_made = self._num_made, 0
        self._epoch += 1
        for _ in range(num_made):
            yield []
        for start in range(num_made * self._batch_size, len(order), self._batch_size):
            rows = order[start : start + self._batch_size]
            shares = share_rows([self._lengths[row] for row in rows], self._num_ranks)
            yield [rows[position] for position in shares[self._rank]]

"""Tokenized rows from parquet, the order they are trained in, and how they become one padded batch.

Attention and labels are masked by length, never by the pad id: in many models the pad token is the stop token, and
masking by id would unlearn to stop. The order is a pure function of lengths, seed and epoch, so all ranks agree on it.

Shapes: B rows, T tokens of the longest row in the batch.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy
import pyarrow.parquet
import torch
from torch.utils.data import Sampler

from finetune_trainer.loss import IGNORED

_GROUP_BATCHES = 50
"""Optimizer steps whose rows are sorted by length together (a choice): little padding, and the order stays random."""


class Rows:
    """The rows of one split, in memory as flat arrays."""

    def __init__(self, table: pyarrow.Table) -> None:
        self._columns = {name: _flatten(table[name]) for name in table.column_names if name != "row"}
        self.sources = [int(row) for row in table["row"].to_numpy()]
        """Index of each row in its source, from 0."""
        offsets = self._columns["input_ids"][1]
        self.lengths: list[int] = numpy.diff(offsets).tolist()

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row: dict[str, Any] = {}
        for name, (values, offsets) in self._columns.items():
            row[name] = values[index] if offsets is None else values[offsets[index] : offsets[index + 1]]
        return row


def load_rows(path: Path) -> Rows:
    """Read one split as `dataset` wrote it; no rows where there is no file."""
    if not path.exists():
        kinds = {"row": pyarrow.int64(), "input_ids": pyarrow.list_(pyarrow.int32())}
        return Rows(pyarrow.table({name: pyarrow.array([], kind) for name, kind in kinds.items()}))
    return Rows(pyarrow.parquet.read_table(path))


def _flatten(column: Any) -> tuple[Any, Any]:
    """Turn a column into (values, offsets); offsets is None where each row holds one number."""
    array = column.combine_chunks()
    if isinstance(array, pyarrow.ChunkedArray):
        array = array.chunk(0) if array.num_chunks else pyarrow.array([], type=array.type)
    if pyarrow.types.is_list(array.type) or pyarrow.types.is_large_list(array.type):
        offsets = array.offsets.to_numpy()
        return array.values.to_numpy(zero_copy_only=False), offsets
    return array.to_numpy(zero_copy_only=False), None


def collate_rows(rows: Sequence[Mapping[str, Any]], pad_token_id: int) -> dict[str, torch.Tensor]:
    """Pad rows on the right into one batch.

    Returns:
        input_ids, attention_mask and, where the rows have them, token_type_ids: [B, T]; labels: [B] or [B, T].
    """
    batch = {
        "input_ids": _pad([row["input_ids"] for row in rows], pad_token_id),
        "attention_mask": _pad([numpy.ones(len(row["input_ids"]), dtype=numpy.int64) for row in rows], 0),
    }
    if "token_type_ids" in rows[0]:
        batch["token_type_ids"] = _pad([row["token_type_ids"] for row in rows], 0)
    if "labels" in rows[0]:
        batch["labels"] = _pad([row["labels"] for row in rows], IGNORED)
    else:
        batch["labels"] = torch.tensor([int(row["label"]) for row in rows])
    return batch


def _pad(values: Sequence[Any], filler: int) -> torch.Tensor:
    padded = torch.full((len(values), max(len(row) for row in values)), filler, dtype=torch.int64)
    for index, row in enumerate(values):
        padded[index, : len(row)] = torch.from_numpy(numpy.asarray(row, dtype=numpy.int64))
    return padded


def build_order(lengths: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[int]:
    """Shuffle rows so that each optimizer step holds rows of similar length; the step with the longest row comes first.

    A run too large for its memory so fails in its first minute, not on one row somewhere.

    Args:
        lengths: tokens of each row.
        batch_size: rows per optimizer step over all ranks.
        seed: of the run.
        epoch: from 0.
    """
    shuffled = numpy.random.default_rng((seed, epoch)).permutation(len(lengths))
    size = batch_size * min(_GROUP_BATCHES, max(1, len(lengths) // (batch_size * 4)))
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


class GroupedOrder(Sampler[int]):
    """Goes through `build_order` epoch by epoch."""

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self._lengths, self._batch_size, self._seed = lengths, batch_size, seed
        self._epoch = 0

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        order = build_order(self._lengths, self._batch_size, self._seed, self._epoch)
        self._epoch += 1
        return iter(order)

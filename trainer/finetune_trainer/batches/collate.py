"""Rows become tensors: one packed row without padding, or several padded ones.

Labels are masked by position, never by the pad id: in many models the pad token is the stop token, and masking by id
would unlearn to stop. The first token of a row is never a target: nothing stands before it that could predict it, and
in a packed row what stands before it is another row's end.

Shapes: N rows, T tokens: of the longest row when padded, of all rows when packed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy
import torch

from finetune_trainer.data.samples import IGNORED

Batch = dict[str, Any]
"""What one forward pass takes, and `labels`."""


@dataclass(frozen=True, slots=True)
class Padding:
    """What fills short rows, and on which side."""

    token_id: int
    is_left: bool = False
    """For heads that read the last position of a batch, whatever stands there."""


@dataclass(frozen=True, slots=True)
class Batching:
    """How rows are put together, in training and evaluation alike."""

    padding: Padding
    micro_batch_tokens: int
    """Most tokens of a micro-batch, padding included; a longer row is one by itself."""
    is_packed: bool
    """Whether rows share one instead of being padded."""


def collate_inputs(rows: Sequence[Mapping[str, Any]], padding: Padding, *, is_packed: bool) -> Batch:
    """Make what one forward pass takes of a micro-batch, packed or padded."""
    return _pack_inputs(rows) if is_packed else _pad_inputs(rows, padding)


def _pad_inputs(rows: Sequence[Mapping[str, Any]], padding: Padding) -> Batch:
    """Pad rows.

    Returns:
        input_ids, attention_mask and, where the rows have them, token_type_ids: [N, T].
    """
    batch = {
        "input_ids": _pad([row["input_ids"] for row in rows], padding.token_id, padding),
        "attention_mask": _pad([numpy.ones(len(row["input_ids"]), dtype=numpy.int64) for row in rows], 0, padding),
    }
    if "token_type_ids" in rows[0]:
        batch["token_type_ids"] = _pad([row["token_type_ids"] for row in rows], 0, padding)
    return batch


def _pack_inputs(rows: Sequence[Mapping[str, Any]]) -> Batch:
    """Lay rows one after another; `finetune_trainer.batches.packed_attention` keeps them apart.

    Returns:
        input_ids, position_ids (from 0 in each row) and, where the rows have them, token_type_ids: [1, T];
        cu_seq_lens_q and _k: [N + 1] where each row begins, and the end; max_length_q and _k: the longest row.
    """
    lengths = [len(row["input_ids"]) for row in rows]
    starts = torch.tensor(numpy.cumsum([0, *lengths]), dtype=torch.int32)
    batch: Batch = {
        "input_ids": _join([row["input_ids"] for row in rows]),
        "position_ids": _join([numpy.arange(length) for length in lengths]),
        "cu_seq_lens_q": starts,
        "cu_seq_lens_k": starts,
        "max_length_q": max(lengths),
        "max_length_k": max(lengths),
    }
    if "token_type_ids" in rows[0]:
        batch["token_type_ids"] = _join([row["token_type_ids"] for row in rows])
    return batch


def collate_row_labels(rows: Sequence[Mapping[str, Any]]) -> torch.Tensor:
    """Return the label of each row, [N]."""
    return torch.tensor([int(row["label"]) for row in rows])


def collate_token_labels(rows: Sequence[Mapping[str, Any]], padding: Padding, *, is_packed: bool) -> torch.Tensor:
    """Return the next tokens that are learned, [N, T] or packed [1, T]."""
    labels = [_mask_first(row["labels"]) for row in rows]
    return _join(labels) if is_packed else _pad(labels, IGNORED, padding)


def count_targets(batch: Batch) -> int:
    """Count what a micro-batch is trained on: tokens, or rows where each has one label."""
    return int((batch["labels"] != IGNORED).sum())


def count_tokens(batch: Batch) -> int:
    """Count the tokens of a micro-batch, padding left out."""
    return int(batch["attention_mask"].sum()) if "attention_mask" in batch else batch["input_ids"].numel()


def _mask_first(labels: Any) -> Any:
    masked = numpy.array(labels, dtype=numpy.int64)
    masked[0] = IGNORED
    return masked


def _join(values: Sequence[Any]) -> torch.Tensor:
    return torch.from_numpy(numpy.concatenate([numpy.asarray(row, dtype=numpy.int64) for row in values]))[None]


def _pad(values: Sequence[Any], filler: int, padding: Padding) -> torch.Tensor:
    longest = max(len(row) for row in values)
    padded = torch.full((len(values), longest), filler, dtype=torch.int64)
    for index, row in enumerate(values):
        start = longest - len(row) if padding.is_left else 0
        padded[index, start : start + len(row)] = torch.from_numpy(numpy.asarray(row, dtype=numpy.int64))
    return padded

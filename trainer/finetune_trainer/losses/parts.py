"""Losses as sums beside the number of their targets, so that any way of cutting a batch gives the same gradient.

The training step divides the sum by the targets of the whole optimizer step (all micro-batches, all ranks); evaluation
divides by the targets of the whole split. A mean of batch means, the stock way, weighs short rows more than long ones.

Shapes: B rows, T tokens of a row, H hidden size, V vocabulary, K labels, N targets.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional

from finetune_trainer.losses import cross_entropy

IGNORED = -100
"""Label of a position that is no target; torch's own default for cross-entropy."""


@dataclass(frozen=True, slots=True)
class LossParts:
    """What one forward pass says about its targets; tensors without gradient but `total`."""

    total: torch.Tensor
    """Sum of the losses of all targets."""
    num_targets: int
    num_correct: torch.Tensor
    """How many targets were the most probable id."""
    predictions: torch.Tensor | None = None
    """[N] the most probable label of each row; None for tokens, of which only sums are kept."""
    targets: torch.Tensor | None = None
    """[N] the right label of each row; None for tokens."""


def compute_token_loss(logits: torch.Tensor, labels: torch.Tensor) -> LossParts:
    """Sum the cross-entropy of every next token that is a target, from whole logits.

    Args:
        logits: [B, T, V].
        labels: [B, T], the input's own ids or IGNORED; position t is predicted from the tokens before it.
    """
    shifted = labels[:, 1:]
    keep = shifted != IGNORED
    # Only targets are turned into float32: prompts and padding are often most of the positions.
    chosen, targets = logits[:, :-1][keep].float(), shifted[keep]
    total = functional.cross_entropy(chosen, targets, reduction="sum")
    return LossParts(total, targets.numel(), (chosen.detach().argmax(-1) == targets).sum())


def compute_token_loss_of_states(
    hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, dtype: torch.dtype | None = None
) -> LossParts:
    """Sum the same loss from the states before the head, without ever having the logits.

    Args:
        hidden: [B, T, H].
        weight: [V, H] of the head.
        labels: [B, T], as for `compute_token_loss`.
        dtype: of the head's product; None: that of `hidden`.
    """
    shifted = labels[:, 1:]
    keep = shifted != IGNORED
    targets = shifted[keep]
    found = cross_entropy.compute_head_loss(hidden[:, :-1][keep], weight, targets, dtype=dtype)
    return LossParts(found.total, targets.numel(), found.num_correct)


def compute_row_loss(logits: torch.Tensor, labels: torch.Tensor) -> LossParts:
    """Sum the cross-entropy of one label per row.

    Args:
        logits: [B, K].
        labels: [B]; IGNORED for a row that is no target.
    """
    keep = labels != IGNORED
    chosen, targets = logits[keep].float(), labels[keep]
    total = functional.cross_entropy(chosen, targets, reduction="sum")
    predictions = chosen.detach().argmax(-1)
    return LossParts(total, targets.numel(), (predictions == targets).sum(), predictions, targets)

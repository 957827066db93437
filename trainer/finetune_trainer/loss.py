"""Losses as sums beside the number of their targets, so that any way of cutting a batch gives the same gradient.

The training step divides the sum by the targets of the whole optimizer step (all micro-batches, all ranks); evaluation
divides by the targets of the whole split. A mean of batch means, the stock way, weighs short rows more than long ones.

Shapes: B rows, T tokens with padding, V vocabulary, K labels, N targets.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional

IGNORED = -100
"""Label of a position that is no target; torch's own default for cross-entropy."""


@dataclass(frozen=True, slots=True)
class LossParts:
    """What one forward pass says about its targets; tensors without gradient but `total`."""

    total: torch.Tensor
    """Sum of the losses of all targets."""
    predictions: torch.Tensor
    """[N] the most probable id of each target."""
    targets: torch.Tensor
    """[N] the right id of each target."""


def compute_token_loss(logits: torch.Tensor, labels: torch.Tensor) -> LossParts:
    """Sum the cross-entropy of every next token that is a target.

    Args:
        logits: [B, T, V].
        labels: [B, T], the input's own ids or IGNORED; position t is predicted from the tokens before it.
    """
    shifted = labels[:, 1:]
    keep = shifted != IGNORED
    # Only targets are turned into float32: prompts and padding are often most of the positions.
    return _compute(logits[:, :-1][keep], shifted[keep])


def compute_row_loss(logits: torch.Tensor, labels: torch.Tensor) -> LossParts:
    """Sum the cross-entropy of one label per row.

    Args:
        logits: [B, K].
        labels: [B].
    """
    return _compute(logits, labels)


def count_token_targets(labels: torch.Tensor) -> int:
    """Count the targets of `compute_token_loss`."""
    return int((labels[:, 1:] != IGNORED).sum())


def count_row_targets(labels: torch.Tensor) -> int:
    """Count the targets of `compute_row_loss`."""
    return labels.shape[0]


def _compute(logits: torch.Tensor, targets: torch.Tensor) -> LossParts:
    """Sum the cross-entropy of logits [N, V] against targets [N]; 0 with a gradient where N is 0."""
    total = functional.cross_entropy(logits.float(), targets, reduction="sum")
    return LossParts(total, logits.detach().argmax(-1), targets)

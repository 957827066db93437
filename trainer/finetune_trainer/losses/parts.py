"""Losses as sums beside the number of their targets, so that any way of cutting a batch gives the same gradient.

The training step divides the sum by the targets of the whole optimizer step (all micro-batches, all ranks); evaluation
divides by the targets of the whole split. A mean of batch means, the stock way, weighs short rows more than long ones.

Shapes: N targets.
"""

from dataclasses import dataclass

import torch


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

    def compute_mean(self) -> float:
        """Return the mean loss of a target; 0 where there is none."""
        return float(self.total) / max(1, self.num_targets)

"""The loss of one label per row.

Shapes: B rows, K labels, N rows that are targets.
"""

import torch
from torch.nn import functional

from finetune_trainer.data.samples import IGNORED
from finetune_trainer.losses.parts import LossParts


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

"""Several ranks that train one model: what they need to know of each other before the first step."""

from typing import Any

import torch

from finetune_trainer.batches.collate import Batch
from finetune_trainer.tasks import TaskHead


def freeze_unused(model: Any, head: TaskHead, batch: Batch, *, is_autocast: bool) -> list[str]:
    """Freeze what no text goes through, such as towers for images: ranks would wait for its gradient for ever.

    Experts are left alone, which another row may well go through.

    Args:
        model: before it is wrapped for the ranks.
        head: of the task.
        batch: any, on the model's device.
        is_autocast: as for `TaskHead.compute_loss`.

    Returns:
        The names of the weights that were frozen.
    """
    was_training = model.training
    # Without dropout, and without layers that are left out by chance.
    model.eval()
    loss: Any = head.compute_loss(model, batch, is_autocast=is_autocast).total
    loss.backward()
    unused = [
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and parameter.grad is None and "expert" not in name
    ]
    model.zero_grad(set_to_none=True)
    model.train(was_training)
    for name in unused:
        model.get_parameter(name).requires_grad_(False)
    return unused


def count_ranks() -> int:
    """Count the ranks of the run; 1 where there is no group of them."""
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1

"""How a task's model turns a micro-batch into losses: one label per row, or next tokens.

Next tokens are scored without logits wherever the head is a plain matrix: the model is run with its head out of the
way, and loss and gradient come from the states before it (`cross_entropy`).
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from finetune_trainer.batches.collate import Batch
from finetune_trainer.evaluation.metrics import RowScores, Scores, TokenScores
from finetune_trainer.losses import parts
from finetune_trainer.losses.parts import LossParts
from finetune_trainer.model import unwrap
from finetune_trainer.planning import plan


@dataclass(frozen=True, slots=True)
class Objective:
    """How a task is trained and measured."""

    model_class: str
    """Name of the transformers class that loads the model."""
    adapter_task: str
    """peft's name of the task."""
    has_labels: bool
    """Whether each row has one label, and the model a head for them."""

    def build_scores(self, num_labels: int) -> Scores:
        """Return what gathers the task's metrics; `num_labels` is 0 for tasks without."""
        return RowScores(num_labels) if self.has_labels else TokenScores()

    def compute(self, model: Any, batch: Batch, *, is_autocast: bool) -> LossParts:
        """Run the model on one micro-batch.

        Args:
            model: in the mode it should run in; wrapped or not.
            batch: from `collate`, on the model's device.
            is_autocast: the matrix products are in bfloat16 while the weights are not.
        """
        labels = batch["labels"]
        inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
        device = labels.device.type
        if self.has_labels:
            with torch.autocast(device, torch.bfloat16, enabled=is_autocast):
                logits = model(**inputs).logits
            return parts.compute_row_loss(logits, labels)
        head = _find_plain_head(model)
        with torch.autocast(device, torch.bfloat16, enabled=is_autocast), _without_head(model, head):
            outputs = model(**inputs).logits
        if head is None:
            return parts.compute_token_loss(outputs, labels)
        return parts.compute_token_loss_of_states(
            outputs, head.weight, labels, torch.bfloat16 if is_autocast else head.weight.dtype
        )


def build_objective(model_class: str, is_labelled: bool) -> Objective:
    """Describe how a task is trained: one label per row, or next tokens."""
    return Objective(model_class, "SEQ_CLS" if is_labelled else "CAUSAL_LM", is_labelled)


def _find_plain_head(model: Any) -> nn.Linear | None:
    """Return the head where logits are nothing but its matrix product; None where they are more.

    Some architectures scale or cap their logits, and an adapter may stand in the head's place.
    """
    base = unwrap.get_base(model)
    head = base.get_output_embeddings()
    is_plain = type(head) is nn.Linear and head.bias is None and base.config.model_type in plan.PLAIN_HEADS
    return head if is_plain else None


@contextlib.contextmanager
def _without_head(model: Any, head: nn.Linear | None) -> Iterator[None]:
    """Let the model give its last hidden states in the place of logits."""
    if head is None:
        yield
        return
    base = unwrap.get_base(model)
    base.set_output_embeddings(nn.Identity())
    try:
        yield
    finally:
        base.set_output_embeddings(head)

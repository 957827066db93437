"""The loss of next tokens, with or without the logits they are usually computed from.

Logits are never there where the head is a plain matrix: the model is run with its head out of the way, and loss and
gradient come from the states before it (`chunked_lm_head`).

Shapes: B rows, T tokens of a row, H hidden size, V vocabulary.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from finetune_trainer.data.samples import IGNORED
from finetune_trainer.losses import chunked_lm_head
from finetune_trainer.losses.parts import LossParts
from finetune_trainer.model import architectures, unwrap


def compute_model_loss(model: Any, batch: Mapping[str, Any], *, is_autocast: bool) -> LossParts:
    """Run a language model on one micro-batch and sum the cross-entropy of every next token that is a target.

    Args:
        model: in the mode it should run in; wrapped or not.
        batch: what its forward pass takes, and `labels`, as for `compute_token_loss`.
        is_autocast: the matrix products are in bfloat16 while the weights are not.
    """
    labels = batch["labels"]
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    head = _find_plain_head(model)
    with torch.autocast(labels.device.type, torch.bfloat16, enabled=is_autocast), _without_head(model, head):
        outputs = model(**inputs).logits
    if head is None:
        return compute_token_loss(outputs, labels)
    return compute_token_loss_of_states(
        outputs, head.weight, labels, torch.bfloat16 if is_autocast else head.weight.dtype
    )


def _find_plain_head(model: Any) -> nn.Linear | None:
    """Return the head where logits are nothing but its matrix product; None where they are more.

    Some architectures scale or cap their logits, and an adapter may stand in the head's place.
    """
    base = unwrap.get_base(model)
    head = base.get_output_embeddings()
    is_plain = type(head) is nn.Linear and head.bias is None and base.config.model_type in architectures.PLAIN_HEADS
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
    found = chunked_lm_head.compute_head_loss(hidden[:, :-1][keep], weight, targets, dtype=dtype)
    return LossParts(found.total, targets.numel(), found.num_correct)

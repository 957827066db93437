"""Cross-entropy of a language model's head without its logits: the largest tensor of a training is never there whole.

The head's matrix product, the loss and its gradient are computed together in the forward pass, a few tokens at a time;
what stays is the gradient of the hidden states. Going backward then is one multiplication. A head that is trained has
its own gradient summed up on the way.

Shapes: N targets, H hidden size, V vocabulary, C targets of a chunk.
"""

from dataclasses import dataclass
from typing import Any

import torch

from finetune_trainer.planning.memory import HEAD_CHUNK_BYTES

_LEAST_CHUNK = 16


@dataclass(frozen=True, slots=True)
class HeadLoss:
    """What the head says about its targets."""

    total: torch.Tensor
    """Sum of the losses; carries the gradient."""
    num_correct: torch.Tensor
    """How many targets were the most probable token."""


def compute_head_loss(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    *,
    label_smoothing: float = 0.0,
    target_weights: torch.Tensor | None = None,
    dtype: torch.dtype | None = None,
    chunk: int | None = None,
) -> HeadLoss:
    """Sum the cross-entropy of `hidden @ weight.T` against targets.

    Args:
        hidden: [N, H] states that predict the targets.
        weight: [V, H] of the head, which has no bias.
        targets: [N] ids.
        label_smoothing: share of the probability that is spread evenly over the vocabulary, 0 to 1, as in
            `torch.nn.functional.cross_entropy`.
        target_weights: [N] factor of each target's loss; None: 1.
        dtype: of the matrix products; None: that of `hidden`.
        chunk: targets at a time; None: as many as keep the logits within a few dozen MB.
    """
    if chunk is None:
        chunk = max(_LEAST_CHUNK, HEAD_CHUNK_BYTES[hidden.device.type] // (4 * weight.shape[0]))
    total, num_correct = _HeadLoss.apply(  # type: ignore[no-untyped-call]
        hidden, weight, targets, label_smoothing, target_weights, dtype or hidden.dtype, chunk
    )
    return HeadLoss(total, num_correct)


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917 - torch passes all of them by position
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        targets: torch.Tensor,
        label_smoothing: float,
        target_weights: torch.Tensor | None,
        dtype: torch.dtype,
        chunk: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        needs_hidden, needs_weight = ctx.needs_input_grad[:2]
        head = weight.to(dtype)
        hidden_gradient = torch.empty_like(hidden) if needs_hidden else None
        weight_gradient = torch.zeros(weight.shape, dtype=torch.float32, device=weight.device) if needs_weight else None
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        num_correct = torch.zeros((), dtype=torch.int64, device=hidden.device)
        for start in range(0, len(targets), chunk):
            part = slice(start, start + chunk)
            states, ids = hidden[part].to(dtype), targets[part, None]
            factors = None if target_weights is None else target_weights[part, None].float()
            logits = (states @ head.T).float()
            losses, correct = _reduce(logits, ids, label_smoothing)
            total += (losses if factors is None else losses * factors).sum()
            num_correct += correct
            if not (needs_hidden or needs_weight):
                del logits
                continue
            # From here on `logits` holds the probabilities, then the gradient.
            logits.sub_(label_smoothing / logits.shape[1])
            logits.scatter_add_(1, ids, torch.full_like(ids, label_smoothing - 1.0, dtype=logits.dtype))
            if factors is not None:
                logits *= factors
            gradient = logits.to(dtype)
            if hidden_gradient is not None:
                hidden_gradient[part] = gradient @ head
            if weight_gradient is not None and dtype is torch.float32:
                # Without a copy of the whole gradient per chunk; only equal types can be added so.
                weight_gradient.addmm_(gradient.T, states)
            elif weight_gradient is not None:
                weight_gradient += gradient.T @ states
            # Else the next chunk would be made beside this one.
            del logits, gradient
        ctx.save_for_backward(hidden_gradient, weight_gradient)
        ctx.weight_dtype = weight.dtype
        ctx.mark_non_differentiable(num_correct)
        return total, num_correct

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden_gradient, weight_gradient = ctx.saved_tensors
        factor = gradients[0]
        if hidden_gradient is not None:
            hidden_gradient = hidden_gradient * factor.to(hidden_gradient.dtype)
        if weight_gradient is not None:
            weight_gradient = (weight_gradient * factor).to(ctx.weight_dtype)
        return hidden_gradient, weight_gradient, None, None, None, None, None


def _reduce(logits: torch.Tensor, ids: torch.Tensor, smoothing: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Turn logits [C, V] into probabilities in place.

    Returns:
        [C, 1] the loss of each target, and how many targets have the largest logit.
    """
    largest = logits.amax(-1, keepdim=True)
    logits.sub_(largest)
    target = logits.gather(1, ids)
    correct = (target >= 0).sum()
    mean = logits.mean(-1, keepdim=True) if smoothing else None
    normalizer = logits.exp_().sum(-1, keepdim=True)
    logits.div_(normalizer)
    losses = normalizer.log_().sub_(target)
    if mean is not None:
        # The smoothed loss is (1 - s)(log Z - x_target) + s (log Z - mean x).
        losses += smoothing * (target - mean)
    return losses, correct

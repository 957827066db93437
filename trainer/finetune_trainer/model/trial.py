"""Which layers of a model take part when a text goes through it: tried without weights, forwards and backwards.

torch's fake tensors have shapes and no numbers, as those on its meta device, and libraries know them: transformers
leaves out what it would look up among the numbers. Architectures that must look at numbers all the same (where a row
ends, to which expert a token goes) can't be tried; of those, no layer is named.
"""

import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

logger = logging.getLogger(__name__)

_TOKENS = 8
"""Length of the row (a choice)."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What was seen of some layers; empty where the model couldn't be tried."""

    uncalled: list[str]
    """Those whose weights are read without a call to the layer: Mamba multiplies by the matrix."""
    unread: list[str]
    """Those that the answer doesn't depend on."""


def try_layers(model: Any, names: Sequence[str]) -> Trial:
    """Put a text through a model on the meta device.

    Args:
        model: stays as it is, but for how its experts are computed.
        names: of the linear layers to look at.
    """
    called: set[str] = set()
    hooks = [
        model.get_submodule(name).register_forward_pre_hook(lambda *_, name=name: called.add(name)) for name in names
    ]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they are about the trial, not about the model
            is_read = _differentiate(model, names)
    except Exception as error:
        logger.debug("%s can't be tried without weights: %s", type(model).__name__, error)
        return Trial([], [])
    finally:
        for hook in hooks:
            hook.remove()
    return Trial(
        uncalled=[name for name in names if is_read[name] and name not in called],
        unread=[name for name in names if not is_read[name]],
    )


def _differentiate(model: Any, names: Sequence[str]) -> Mapping[str, bool]:
    """Tell of each layer whether the model's answer has a derivative by its weight."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    if not names:
        return {}
    if hasattr(model, "set_experts_implementation"):
        # The usual one wants bfloat16, the plain one looks up which expert has a token at all.
        model.set_experts_implementation("batched_mm")
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    with FakeTensorMode(), torch.enable_grad():
        state = {
            name: torch.empty(item.shape, dtype=item.dtype, requires_grad=item.is_floating_point())
            for name, item in tensors.items()
        }
        tokens, mask = torch.zeros((1, _TOKENS), dtype=torch.int64), torch.ones((1, _TOKENS), dtype=torch.int64)
        inputs = {"input_ids": tokens, "attention_mask": mask, "use_cache": False}
        answer = torch.func.functional_call(model, state, (), inputs, tie_weights=True).logits.sum()
        weights = [state[f"{name}.weight"] for name in names]
        gradients = torch.autograd.grad(answer, weights, allow_unused=True)
    return {name: gradient is not None for name, gradient in zip(names, gradients, strict=True)}

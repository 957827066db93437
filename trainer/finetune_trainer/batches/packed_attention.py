"""Attention over packed rows: each sees its own tokens and no other's, and no mask is ever built.

One function, registered with transformers' attention interface, serves every model that asks the interface: on a GPU
torch's variable-length kernel, elsewhere one call of scaled dot-product attention per row. It honours each argument it
knows and refuses those it does not: an ignored one would be a silently wrong gradient. transformers' own detection of
packed rows fails without a word when a mask is given or the cache is on, and never works for encoders.

Which architectures are packed is a list in `plan`, each proven by a test against one row at a time.

Shapes: T tokens of all rows, H heads, G key and value heads, D size of a head, N rows.
"""

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface

from finetune_trainer.model import architectures, unwrap

PACKED = "finetune_packed"
"""Our name in transformers' registry of attention functions."""
_KNOWN = {"position_ids", "cu_seq_lens_k", "max_length_k", "use_cache"}
"""Arguments that say nothing new here; a cache that is filled beside the first pass changes nothing of it."""


def attend_packed(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    is_causal: bool | None = None,
    sliding_window: int | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    max_length_q: int | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Compute attention within each row.

    Args:
        module: the layer.
        query: [1, H, T, D].
        key: [1, G, T, D].
        value: [1, G, T, D].
        attention_mask: None; a mask would mean that rows are padded.
        scaling: of the scores; None: 1 / sqrt(D).
        dropout: of the weights.
        is_causal: whether tokens don't see later ones; None: as the layer's own `is_causal` says.
        sliding_window: how many tokens back a token sees, itself included; None: all.
        cu_seq_lens_q: [N + 1] where rows begin, and the end.
        max_length_q: tokens of the longest row.
        others: what transformers passes on.

    Returns:
        [1, T, H, D], and no weights.

    Raises:
        NotImplementedError: the model wants something this function doesn't compute.
        ValueError: the batch isn't packed.
    """
    asked = {name for name, given in others.items() if given is not None and given is not False}
    unknown = sorted(asked - _KNOWN)
    if unknown:
        raise NotImplementedError(f"{type(module).__name__} asks packed attention for {', '.join(unknown)}")
    if attention_mask is not None or cu_seq_lens_q is None or max_length_q is None or query.shape[0] != 1:
        raise ValueError("packed attention must get one packed row, its borders and no mask")
    is_causal = bool(getattr(module, "is_causal", True)) if is_causal is None else is_causal
    if torch.is_autocast_enabled(query.device.type):
        # Rotary positions have brought query and key to float32; the library's own attention would cast them back.
        dtype = torch.get_autocast_dtype(query.device.type)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    if query.is_cuda and query.dtype in (torch.bfloat16, torch.float16) and not dropout:
        window = (-1 if sliding_window is None else sliding_window - 1, 0) if is_causal else (-1, -1)
        borders = (cu_seq_lens_q, max_length_q)
        return _attend_on_gpu(query, key, value, borders=borders, scaling=scaling, window=window), None
    ends = cu_seq_lens_q.tolist()
    parts = []
    for start, end in itertools.pairwise(ends):
        band = _build_band(end - start, sliding_window, query.device) if is_causal else None
        part = functional.scaled_dot_product_attention(
            query[:, :, start:end],
            key[:, :, start:end],
            value[:, :, start:end],
            attn_mask=band,
            dropout_p=dropout,
            is_causal=is_causal and band is None,
            scale=scaling,
            enable_gqa=query.shape[1] != key.shape[1],
        )
        parts.append(part.transpose(1, 2))
    return torch.cat(parts, dim=1), None


def _attend_on_gpu(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    borders: tuple[torch.Tensor, int],
    scaling: float | None,
    window: tuple[int, int],
) -> torch.Tensor:
    from torch.nn.attention.varlen import varlen_attn

    # [T, H, D]
    flat_query, flat_key, flat_value = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    starts, longest = borders
    attended: Any = varlen_attn(
        flat_query,
        flat_key,
        flat_value,
        starts,
        starts,
        longest,
        longest,
        scale=scaling,
        window_size=window,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    packed_heads: torch.Tensor = attended[None]
    return packed_heads


def _build_band(length: int, window: int | None, device: torch.device) -> torch.Tensor | None:
    """[length, length] which tokens a token sees through a window; None where the window holds the whole row."""
    if window is None or length <= window:
        return None
    distance = torch.arange(length, device=device)[:, None] - torch.arange(length, device=device)
    return (distance >= 0) & (distance < window)


AttentionInterface.register(PACKED, attend_packed)
# Without this, transformers would build the dense mask this function does without.
AttentionMaskInterface.register(PACKED, lambda *_, **__: None)


@contextlib.contextmanager
def packed(model: Any, *, reads_first_tokens: bool = False) -> Iterator[None]:
    """Let a model take packed rows; afterwards it is as it was, ready to be published.

    Args:
        model: of an architecture `plan.is_packable` lists.
        reads_first_tokens: what stands on the encoder reads the first token of each row, and no other.
    """
    base = unwrap.get_base(model)
    before = base.config._attn_implementation  # what set_attn_implementation takes; there is no public way to ask
    hook = (
        _find_encoder(base).register_forward_hook(_keep_first_tokens, with_kwargs=True) if reads_first_tokens else None
    )
    base.set_attn_implementation(PACKED)
    try:
        yield
    finally:
        base.set_attn_implementation(before)
        if hook is not None:
            hook.remove()


def _find_encoder(base: Any) -> torch.nn.Module:
    encoder: torch.nn.Module = base.get_submodule(architectures.PACKED_ENCODERS[base.config.model_type])
    return encoder


def _keep_first_tokens(_: Any, __: Any, arguments: dict[str, Any], output: Any) -> Any:
    """Turn hidden states [1, T, …] into those of each row's first token, [N, 1, …]: all that pooler and head read."""
    states = output.last_hidden_state
    firsts = arguments["cu_seq_lens_q"][:-1]
    output.last_hidden_state = states[0].index_select(0, firsts)[:, None]
    return output

"""The model below what wraps it."""

from typing import Any

from torch import nn


def get_base(model: Any) -> Any:
    """Return the transformers model below what wraps it: the ranks' synchronization, the adapters."""
    inner = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
    return inner.get_base_model() if hasattr(inner, "get_base_model") else inner

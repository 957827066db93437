"""What libraries say in the log of a run: every warning, but for those listed here, each with the reason.

A warning that nobody has thought of is heard that way. What a user should know is said in our own words, in the run's
warnings; what can be avoided is avoided.
"""

import logging
import re

_OURS = "finetune_"

COSMETIC = (
    # A base for another task lacks a head or has another: `model.structure` finds both, and refuses whatever else.
    r"LOAD REPORT",
    # The names of the labels that are passed beside the number win.
    r"You passed `num_labels=\d+` which is incompatible to the `id2label` map",
    # How a model is given more tokens, which a warning of the prepare stage says.
    r"will be initialized from a multivariate normal distribution that has old embeddings' mean and covariance",
    # Says which kernel a layer falls back to; both compute the same.
    r"falling back to its reference PyTorch implementation",
    # Kernels for GPUs.
    r"CUDA-fused xIELU not available",
    # A packed row has no padding to mask.
    r"We strongly recommend passing in an `attention_mask`",
    # Longformer and BigBird say how they read a row.
    r"Initializing global attention on CLS token|Input ids are automatically padded to be a multiple",
    r"Attention type 'block_sparse' is not possible if sequence_length",
    # peft puts right by itself how GPT-2's layers store their matrices.
    r"fan_in_fan_out is set to False but the target module is `Conv1D`",
    # peft asks transformers for a property by its old name.
    r"`is_gradient_checkpointing` is deprecated",
    # bitsandbytes, once per layer and step: an int8 layer computes in float16, as it always does.
    r"MatMul8bitLt: inputs will be cast",
    # bitsandbytes, at import: it would like a package of faster CPU kernels that is no dependency of ours.
    r"Failed to load CPU \w+ from kernels-community",
    # torch, of parts of libraries that are compiled with it at import.
    r"`torch.jit.script\w*` is deprecated",
)
"""Patterns of what may be left out."""

_PATTERN = re.compile("|".join(COSMETIC))


def is_cosmetic(text: str) -> bool:
    """Tell whether what a library says needn't be heard."""
    return _PATTERN.search(text) is not None


def keep(record: logging.LogRecord) -> bool:
    """Be the filter of a handler: keep our own words, and of libraries' all that isn't cosmetic."""
    return record.name.startswith(_OURS) or not is_cosmetic(record.getMessage())

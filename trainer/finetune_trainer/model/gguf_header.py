"""What a GGUF file says of its tensors, and what transformers would read wrong in it without a word."""

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf

from finetune_api import wording
from finetune_api.errors import ModelError


def read_header(path: Path, where: str) -> list[tuple[str, tuple[int, ...], str]]:
    """Return name, shape and type of each tensor.

    Args:
        path: of the file.
        where: names the model in errors.

    Raises:
        ModelError: the file is cut short or damaged, has no weights, or positions that would be read wrong.
    """
    from transformers.integrations.gguf.reader import GgufHeader, read_gguf_metadata

    try:
        header = GgufHeader.from_file(str(path))
        metadata, _ = read_gguf_metadata(str(path))
        parameters = [
            (tensor.name, tensor.shape, gguf.GGMLQuantizationType(tensor.ggml_type).name) for tensor in header.tensors
        ]
        end = max((header.data_start + tensor.offset + tensor.nbytes for tensor in header.tensors), default=0)
        if end > (size := path.stat().st_size):
            raise ValueError(f"its weights end at byte {end}, the file at {size}")
    except (ValueError, LookupError, OSError, OverflowError, MemoryError, struct.error) as error:
        raise ModelError(
            f"{where} must be a whole GGUF file; it is cut short or damaged ({wording.show_error(error)})",
            "upload the file again.",
        ) from error
    _check_positions(header.architecture, metadata, [name for name, _, _ in parameters], where)
    if not parameters:
        raise ModelError(f"{where} must be a GGUF file with weights; it has none", "upload the model's file.")
    return parameters


def _check_positions(architecture: str, metadata: dict[str, Any], names: Sequence[str], where: str) -> None:
    """Refuse scaled rotary positions, which transformers (5.23) reads from GGUF for gpt-oss alone, without a word."""
    scaling = metadata.get(f"{architecture}.rope.scaling.type", "none")
    lost = [name for name in names if name.startswith(("rope_freqs", "rope_factors"))]
    lost += [] if scaling == "none" else [f"rope.scaling.type {scaling}"]
    if lost and architecture != "gpt-oss":
        raise ModelError(
            f"{where} must have plain rotary positions to be read from GGUF; it scales them ({', '.join(lost)})",
            "give the model's folder of safetensors.",
        )

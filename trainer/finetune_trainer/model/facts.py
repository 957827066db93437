"""The base model as facts: whether it is whole and safe, and how large which part of it is.

Weights are never loaded here: names, shapes and types come from the headers of safetensors and GGUF. A model that needs
code of its own is refused.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors

from finetune_api import wording
from finetune_api.errors import ModelError
from finetune_api.kinds.finetunejob.spec import ModelSource
from finetune_trainer.model import files, gguf_header

if TYPE_CHECKING:
    pass


_MAX_CONFIG_BYTES = 4 * 2**20


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What the headers and the configuration say."""

    model_type: str
    num_parameters: int
    dtype: str
    """Type most weights are stored in, as the file calls it: `BF16`, `F32`, `Q4_1` …"""
    linear_shapes: dict[str, tuple[int, int]]
    """Path and shape of every linear layer that may get an adapter, from the model's structure; empty before that."""
    num_layers: int
    hidden_size: int
    intermediate_size: int
    vocabulary_size: int
    is_decoder: bool
    """Whether the configuration calls an encoder's architecture a decoder."""
    is_encoder_decoder: bool = False
    """Whether it reads with an encoder what a decoder answers."""
    num_quantizable: int = 0
    """Weights of the layers that bitsandbytes replaces, from the model's structure; 0 before that."""


def load_facts(folder: Path, gguf_file: str | None, source: ModelSource) -> ModelFacts:
    """Read configuration and headers of a fetched model.

    Raises:
        ModelError: a file is cut short or damaged, or the architecture is unknown or needs code of its own.
    """
    where = f"spec.model.uri ({source.uri})"
    if gguf_file is None:
        _check_code(folder, where)
        parameters = _read_safetensors(folder, where)
    else:
        parameters = gguf_header.read_header(folder / gguf_file, where)
    config = load_config(folder, gguf_file, source)
    _check_unquantized(config, where)
    shapes = {name: shape for name, shape, _ in parameters}
    dtypes: dict[str, int] = {}
    for _, shape, dtype in parameters:
        dtypes[dtype] = dtypes.get(dtype, 0) + math.prod(shape)
    text = config.get_text_config()
    hidden = int(getattr(text, "hidden_size", 0) or 0)
    return ModelFacts(
        model_type=str(config.model_type),
        num_parameters=sum(map(math.prod, shapes.values())),
        dtype=max(dtypes, key=lambda name: dtypes[name]),
        linear_shapes={},
        num_layers=int(getattr(text, "num_hidden_layers", 0) or 0),
        hidden_size=hidden,
        intermediate_size=find_largest(getattr(text, "intermediate_size", 0)) or 4 * hidden,
        vocabulary_size=int(getattr(text, "vocab_size", 0) or 0),
        is_decoder=bool(getattr(config, "is_decoder", False)),
        is_encoder_decoder=bool(getattr(config, "is_encoder_decoder", False)),
    )


def _check_unquantized(config: Any, where: str) -> None:
    parts = (config, config.get_text_config())
    found = next((value for part in parts if (value := getattr(part, "quantization_config", None)) is not None), None)
    if found is not None:
        method = found.get("quant_method") if isinstance(found, dict) else getattr(found, "quant_method", None)
        raise ModelError(
            f"{where} must hold weights that are not quantized; its configuration says quant_method {method}",
            "give the model as it was before; spec.method.quantization quantizes it for the training.",
        )


def find_largest(size: Any) -> int:
    """Return a size, the largest where layers differ in it."""
    return max(map(int, size), default=0) if isinstance(size, (list, tuple)) else int(size or 0)


def _check_code(folder: Path, where: str) -> None:
    from transformers import CONFIG_MAPPING

    path = folder / "config.json"
    try:
        config = json.loads(path.read_bytes()[:_MAX_CONFIG_BYTES])
    except ValueError as error:
        raise ModelError(f"{where}: config.json must be JSON; {error}", "upload the file again.") from error
    model_type = config.get("model_type") if isinstance(config, dict) else None
    if model_type not in CONFIG_MAPPING:
        # auto_map names Python files in the folder; they are code of whoever made the model.
        needs = "needs code of its own, which is never run" if "auto_map" in (config or {}) else "is not known"
        raise ModelError(
            f"{where}: config.json model_type ({model_type}) must be an architecture of transformers; it {needs}",
            "use a model of an architecture that transformers knows.",
        )


def load_config(folder: Path, gguf_file: str | None, source: ModelSource) -> Any:
    """Load the configuration of a fetched model.

    Raises:
        ModelError: it can't be loaded.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    arguments = {} if gguf_file is None else {"gguf_file": gguf_file}
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **arguments)
    except (ValueError, OSError, KeyError, TypeError, AttributeError, RecursionError, StrictDataclassError) as error:
        raise ModelError(
            f"spec.model.uri ({source.uri}) must have a configuration that can be read; {wording.show_error(error)}",
            "upload the model again.",
        ) from error


def _read_safetensors(folder: Path, where: str) -> list[tuple[str, tuple[int, ...], str]]:
    parameters = []
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safetensors.safe_open(path, framework="numpy") as file:
                for name in file.keys():  # noqa: SIM118 - not a dict: it can't be iterated
                    part = file.get_slice(name)
                    parameters.append((name, tuple(part.get_shape()), str(part.get_dtype())))
        except (safetensors.SafetensorError, OSError) as error:
            raise ModelError(
                f"{where}: {path.name} must be a whole safetensors file; {wording.show_error(error)}",
                "upload the file again.",
            ) from error
    index = folder / files.INDEX
    if index.exists():
        listed = files.parse_weight_map(index.read_bytes(), where)
        if missing := sorted(set(listed.values()) - {path.name for path in folder.glob("*.safetensors")}):
            raise ModelError(
                f"{where}: {index.name} lists files that must be there; {', '.join(missing)} are not",
                files.REMEDY_FOLDER,
            )
    return parameters

"""The model as it is loaded: base weights of an explicit dtype, quantization, the task's head.

safetensors only and never a model's own code. What a checkpoint lacks (a new head) is trained and published whole with
any method: frozen or left out it would be random weights that nobody could load again.
"""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from torch import nn

from finetune_api.errors import ConfigError, ModelError
from finetune_api.kinds.finetunejob.spec import FineTuneJobSpec, MethodKind, Precision, Quantization
from finetune_trainer.model.structure import ModelStructure, inspect_structure

if TYPE_CHECKING:
    from finetune_trainer.tasks import TaskPreparation

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A base model, and what is known of its class and its checkpoint."""

    model: Any
    structure: ModelStructure


def decide_precision(wanted: Precision, device: torch.device) -> Precision:
    """Turn Auto into BFloat16 on GPUs that have it, else Float32.

    Raises:
        ConfigError: BFloat16 is asked for on a GPU without it.
    """
    is_supported = device.type == "cpu" or torch.cuda.is_bf16_supported(including_emulation=False)
    if wanted == Precision.BFLOAT16 and not is_supported:
        raise ConfigError(
            f"spec.training.precision ({wanted}) must be Float32 on this GPU ({torch.cuda.get_device_name(device)})",
            "set precision to Float32 or Auto, or use a newer GPU",
        )
    if wanted == Precision.AUTO:
        return Precision.BFLOAT16 if device.type == "cuda" and is_supported else Precision.FLOAT32
    return wanted


def is_autocast(spec: FineTuneJobSpec, precision: Precision, task: "TaskPreparation") -> bool:
    """Tell whether trained weights stay in float32 while the model computes in bfloat16.

    Trained base weights do: the small steps of fine-tuning would be lost in bfloat16's 8 bits. A frozen base is itself
    kept in bfloat16, and its adapter in float32 by peft, which casts what goes in and out of it; a classifier's head
    beside the adapter has nobody to cast for it. Of a quantized base, all that is not is float32 too
    (`prepare_model_for_kbit_training`), and so would be everything between its layers.
    """
    is_quantized = spec.method.quantization != Quantization.NONE
    is_adapter_alone = spec.method.kind == MethodKind.LORA and not task.HAS_OWN_HEAD and not is_quantized
    return precision == Precision.BFLOAT16 and not is_adapter_alone


def choose_dtype(spec: FineTuneJobSpec, precision: Precision) -> str:
    """Name the dtype the base is loaded in."""
    is_frozen = spec.method.kind == MethodKind.LORA
    return "bfloat16" if precision == Precision.BFLOAT16 and is_frozen else "float32"


def load_base(
    folder: Path,
    spec: FineTuneJobSpec,
    *,
    task: "TaskPreparation",
    labels: Sequence[str],
    precision: Precision,
    device: torch.device,
    num_embeddings: int | None = None,
) -> LoadedModel:
    """Load the base model with the task's head.

    Args:
        folder: local folder of the model.
        spec: of the run.
        task: of the run.
        labels: in the order of their ids; empty for tasks without.
        precision: decided, not Auto.
        device: where the model will be trained.
        num_embeddings: tokens it is given embeddings for; None: as many as it has.

    Raises:
        ModelError: the weights don't fit the architecture or the task.
    """
    arguments: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    arguments |= task.build_model_arguments(labels)
    structure = inspect_structure(folder, None, spec, task)
    arguments["dtype"] = getattr(torch, choose_dtype(spec, precision))
    model_class = getattr(transformers, task.MODEL_CLASS)
    try:
        if spec.method.quantization != Quantization.NONE:
            arguments["quantization_config"] = build_quantization(spec, structure, arguments["dtype"])
            arguments["device_map"] = {"": device}
        model = model_class.from_pretrained(folder, use_safetensors=True, **arguments)
    except (ValueError, RuntimeError, OSError, KeyError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise ModelError(
            f"spec.model.uri ({spec.model.uri}) must hold a model that loads as {task.MODEL_CLASS}: "
            f"{' '.join(str(error).split())[:400]}",
            "check that the folder is complete and its architecture fits spec.task",
        ) from error
    if spec.method.quantization == Quantization.NF4 and device.type == "cpu":
        _keep_training_layout(model)
    if num_embeddings is not None:
        model.resize_token_embeddings(num_embeddings)
    return LoadedModel(model, structure)


def count_quantized(model: nn.Module) -> int:
    """Count the layers that hold their weights in few bits."""
    names = {"bitsandbytes.nn.modules.Linear4bit", "bitsandbytes.nn.modules.Linear8bitLt"}
    # By their whole names: PEFT's layers around them have the same, and nobody else needs bitsandbytes imported.
    return sum(f"{type(module).__module__}.{type(module).__name__}" in names for module in model.modules())


@contextlib.contextmanager
def without_cache(model: Any) -> Iterator[None]:
    """Keep a model from filling a cache of keys and values, which training has no use for; its files don't say so."""
    configurations = [model.config, model.config.get_text_config()]
    before = [(config, getattr(config, "use_cache", None)) for config in configurations]
    for config, _ in before:
        # Also where there is none: transformers' Trainer sets it then.
        config.use_cache = False
    try:
        yield
    finally:
        for config, value in before:
            if value is None:
                vars(config).pop("use_cache", None)
            else:
                config.use_cache = value


def build_quantization(spec: FineTuneJobSpec, structure: ModelStructure, dtype: torch.dtype) -> Any:
    """Describe how the frozen base is quantized; what is new, and every head, stays as it is."""
    skipped = list(structure.unquantized)
    if spec.method.quantization == Quantization.INT8:
        return transformers.BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skipped)
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=skipped,
    )


def _keep_training_layout(model: nn.Module) -> None:
    """Stop bitsandbytes from repacking NF4 weights at the first evaluation.

    On processors with AVX512-BF16 the repacked layout stays on in training and has no autograd: gradients would be
    silently wrong (measured with bitsandbytes 0.50.2).
    """
    from bitsandbytes.nn.modules import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False

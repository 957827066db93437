"""What a method trains of a loaded model: all of it, an adapter, or the head alone."""

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from finetune_api.errors import ConfigError
from finetune_api.kinds.finetunejob.spec import FineTuneJobSpec, LoraVariant, MethodKind, Quantization
from finetune_trainer.model import fit
from finetune_trainer.model.load import LoadedModel

if TYPE_CHECKING:
    from finetune_trainer.tasks import TaskPreparation


_ADDED_BY_PEFT = ("classifier", "score")
"""Heads that PEFT trains beside a classifier's adapter by itself."""


def apply_method(loaded: LoadedModel, spec: FineTuneJobSpec, task: "TaskPreparation") -> Any:
    """Freeze what the method leaves alone and add adapters.

    Returns:
        The same model, or the peft model around it.

    Raises:
        ConfigError: the method doesn't fit the model.
    """
    heads = list(dict.fromkeys([*loaded.structure.new_modules, *loaded.structure.heads]))
    if spec.method.kind == MethodKind.LORA:
        return _add_adapter(loaded, heads, spec, task)
    if spec.method.kind == MethodKind.HEAD_ONLY:
        _freeze_body(loaded.model, heads)
    return loaded.model


def _freeze_body(model: Any, heads: Sequence[str]) -> None:
    """Train the head alone.

    Raises:
        ConfigError: the head is tied to the input embeddings, so it can't be trained alone.
    """
    modules = [model.get_submodule(name) for name in heads]
    if not modules:
        head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
        if head is None or head.weight is embeddings.weight:
            raise ConfigError(
                "spec.method.kind (HeadOnly) must be LoRA or Full for this model: its head and its input embeddings "
                "are one and the same",
                "use LoRA",
            )
        modules = [head]
    model.requires_grad_(False)
    for module in modules:
        module.requires_grad_(True)


def _add_adapter(loaded: LoadedModel, heads: Sequence[str], spec: FineTuneJobSpec, task: "TaskPreparation") -> Any:
    import peft

    model = loaded.model

    if spec.method.quantization != Quantization.NONE:
        model = peft.prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    lora = spec.method.lora
    fit.check_targets(loaded.structure, lora.target_modules)
    config = peft.LoraConfig(
        task_type=task.ADAPTER_TASK,
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=float(lora.dropout),
        # By their whole names: of "all-linear" PEFT makes every layer of torch's, heads and what it then refuses too.
        target_modules=list(fit.match_linear(loaded.structure.linear, lora.target_modules)),
        use_rslora=lora.variant == LoraVariant.RS_LORA,
        use_dora=lora.variant == LoraVariant.DORA,
        modules_to_save=[name for name in heads if name not in _ADDED_BY_PEFT] or None,
    )
    with warnings.catch_warnings():
        # peft asks the model for a property by its old name.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        tuned = peft.get_peft_model(model, config)
    for parameter in tuned.parameters():
        if parameter.requires_grad:
            # peft keeps only its own matrices in float32, not the head that is trained beside them.
            parameter.data = parameter.data.float()
    return tuned


def find_target_modules(model: Any) -> list[str]:
    """Name the kinds of layers that carry an adapter: their last name part, sorted. Empty without an adapter."""
    config = getattr(model, "peft_config", None)
    if config is None:
        return []
    targets = config["default"].target_modules
    return sorted({name.rpartition(".")[2] for name in targets})


def count_trainable(model: nn.Module) -> int:
    """Count the parameters that are trained."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)

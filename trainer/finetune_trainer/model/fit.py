"""What a base model can be trained for: decided in the prepare stage, before anybody waits for a GPU."""

import dataclasses
import math
from collections.abc import Sequence

from finetune_api import wording
from finetune_api.errors import ConfigError, ModelError
from finetune_api.kinds.finetunejob.spec import FineTuneJobSpec, MethodKind, ModelSource, Quantization, Task
from finetune_trainer.model import architectures
from finetune_trainer.model.facts import ModelFacts
from finetune_trainer.model.structure import ModelStructure

ALL_LINEAR = "all-linear"
_MAX_NAMES_SHOWN = 20


def check_task(facts: ModelFacts, spec: FineTuneJobSpec, fitting: Sequence[Task]) -> None:
    """Check that the architecture can do the task.

    Args:
        facts: of the model.
        spec: of the run.
        fitting: the tasks the architecture can be trained for.

    Raises:
        ModelError: it can't.
    """
    if spec.task not in fitting:
        raise ModelError(
            f"spec.model.uri ({spec.model.uri}) must be a model for {spec.task}; architecture {facts.model_type} fits"
            f" {', '.join(fitting) or 'no task'}",
            f"choose a model that fits, or spec.task {fitting[0]}." if fitting else "choose another model.",
        )


def complete_facts(facts: ModelFacts, structure: ModelStructure) -> ModelFacts:
    """Return the facts with what the model's class says of its layers."""
    num_quantizable = sum(map(math.prod, structure.quantized.values()))
    return dataclasses.replace(facts, linear_shapes=structure.linear, num_quantizable=num_quantizable)


def check_structure(structure: ModelStructure, spec: FineTuneJobSpec) -> None:
    """Check that the model can be trained as the spec says.

    Raises:
        ModelError: a LoRA target is not in it.
        ConfigError: maxLength is above the model's positions, or the method or the quantization doesn't go with it.
    """
    most = structure.max_positions
    if most is not None and spec.training.max_length > most:
        raise ConfigError(
            f"spec.training.maxLength ({spec.training.max_length}) must be at most {most}, the positions of"
            f" {spec.model.uri}",
            f"set it to {most} or less.",
        )
    _check_quantization(structure, spec)
    if spec.method.kind == MethodKind.LORA and not structure.linear:
        raise ConfigError(
            f"spec.method.kind ({spec.method.kind}) must be Full or HeadOnly for {spec.model.uri}:"
            f" {structure.class_name} has no linear layer that an adapter could stand on",
            "use Full or HeadOnly, or a model of another architecture.",
        )
    if spec.method.kind == MethodKind.LORA:
        check_targets(structure, spec.method.lora.target_modules)
    if spec.method.kind == MethodKind.HEAD_ONLY and not structure.heads and structure.is_head_tied:
        raise ConfigError(
            f"spec.method.kind ({spec.method.kind}) must be LoRA or Full for {spec.model.uri}: its head and its input"
            " embeddings are one and the same",
            "use LoRA.",
        )


def _check_quantization(structure: ModelStructure, spec: FineTuneJobSpec) -> None:
    wanted = spec.method.quantization
    if wanted == Quantization.NONE:
        return
    where = f"spec.method.quantization ({wanted}) must be None for {spec.model.uri}"
    if structure.num_experts:
        raise ConfigError(
            f"{where}: most of its weights are those of experts, which bitsandbytes leaves as they are",
            "set it to None, or use a model without experts.",
        )
    if why := architectures.UNQUANTIZABLE.get(structure.model_type):
        raise ConfigError(f"{where}: {why}", "set it to None, or use a model of another architecture.")
    if not structure.quantized:
        raise ConfigError(
            f"{where}: bitsandbytes replaces layers of torch's own class Linear, of which {structure.class_name} has"
            f" none; its layers are {', '.join(structure.linear_classes) or 'others'}",
            "set it to None, or use a model of another architecture.",
        )


def order_labels(structure: ModelStructure, labels: Sequence[str], source: ModelSource) -> tuple[list[str], list[str]]:
    """Return the data's labels in the order of the model's own head where it has one for them, and warnings.

    Names are matched exactly, else without case and blanks where that is unambiguous.

    Raises:
        ModelError: the head has another number of classes, so its weights can't be loaded.
    """
    own = structure.head_labels
    if not own or sorted(own) == sorted(labels):
        return list(own or labels), []
    if len(own) != len(labels):
        raise ModelError(
            f"spec.model.uri ({source.uri}) has a head for {len(own)} labels ({wording.show_names(own)}), which must be"
            f" as many as the training rows have: {len(labels)} ({wording.show_names(labels)})",
            "use a model without a head, or rows with the head's labels.",
        )
    folded = {_fold(label): label for label in labels}
    if len(folded) == len(labels) and set(folded) == set(map(_fold, own)):
        return [folded[_fold(name)] for name in own], [
            f"{source.uri}: the labels of its head ({wording.show_names(own)}) are taken for those of the rows"
            f" ({wording.show_names(labels)}), which are spelled in another way"
        ]
    return list(labels), [
        f"{source.uri}: its head has other labels ({wording.show_names(own)}) than the rows"
        f" ({wording.show_names(labels)}); they stand for each other in this order, so figures of the base model mean"
        " little"
    ]


def _fold(label: str) -> str:
    return "".join(sign for sign in label.casefold() if sign not in " _-")


def check_targets(structure: ModelStructure, targets: Sequence[str]) -> None:
    """Check that each LoRA target names a linear layer that takes an adapter.

    Raises:
        ModelError: a target matches nothing.
    """
    unknown = [name for name in targets if not match_linear(structure.linear, [name])]
    if not unknown:
        return
    known = sorted({path.rpartition(".")[2] for path in structure.linear})
    refused = [
        f"{path.rpartition('.')[2]}: {reason}"
        for reason, paths in structure.left_out.items()
        for path in paths[:1]
        if match_linear(dict.fromkeys(paths, (0, 0)), unknown)
    ]
    why = f" ({'; '.join(refused)})" if refused else ""
    raise ModelError(
        f"spec.method.lora.targetModules ({', '.join(unknown)}) must name linear layers of the model{why}, which has"
        f" {', '.join(known[:_MAX_NAMES_SHOWN]) or 'none'}{wording.suggest(unknown[0], known)}",
        f"use names from this list, or {ALL_LINEAR}." if known else "use spec.method.kind Full.",
    )


def describe_left_out(structure: ModelStructure, spec: FineTuneJobSpec) -> list[str]:
    """Name, as warnings, the layers that `all-linear` gives no adapter."""
    if spec.method.kind != MethodKind.LORA or ALL_LINEAR not in spec.method.lora.target_modules:
        return []
    return [
        f"spec.method.lora.targetModules ({ALL_LINEAR}): {len(paths)} modules get no adapter, such as {paths[0]}:"
        f" {reason}"
        for reason, paths in structure.left_out.items()
    ]


def match_linear(linear: dict[str, tuple[int, int]], targets: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Return the linear layers that LoRA targets mean: a target is the end of a layer's path, at a dot."""
    if ALL_LINEAR in targets:
        return linear
    return {
        path: shape
        for path, shape in linear.items()
        if any(path == target or path.endswith(f".{target}") for target in targets)
    }

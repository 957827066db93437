"""What a base model can be trained for: decided in the prepare stage, before anybody waits for a GPU."""

import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from finetune_api import wording
from finetune_api.errors import ConfigError, ModelError
from finetune_api.kinds.finetunejob.spec import FineTuneJobSpec, ModelSource, Quantization, Task
from finetune_trainer.model.facts import ModelFacts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


ALL_LINEAR = "all-linear"


_MAX_NAMES_SHOWN = 20


def check_fit(
    facts: ModelFacts, tokenizer: "PreTrainedTokenizerBase", spec: FineTuneJobSpec, fitting: Sequence[Task]
) -> None:
    """Check that the model can be trained as the spec says.

    Args:
        facts: of the model.
        tokenizer: of the model.
        spec: of the run.
        fitting: the tasks the architecture can be trained for.

    Raises:
        ModelError: the architecture doesn't fit the task, the tokenizer knows more tokens than the model, or a LoRA
            target is not in it.
        ConfigError: maxLength is above the model's positions.
    """
    if spec.task not in fitting:
        raise ModelError(
            f"spec.model.uri ({spec.model.uri}) must be a model for {spec.task}; architecture {facts.model_type} fits"
            f" {', '.join(fitting) or 'no task'}",
            f"choose a model that fits, or spec.task {fitting[0]}." if fitting else "choose another model.",
        )
    if len(tokenizer) > facts.vocabulary_size > 0:
        raise ModelError(
            f"spec.model.uri ({spec.model.uri}): the tokenizer ({len(tokenizer)} tokens) must not know more tokens than"
            f" the model ({facts.vocabulary_size})",
            "upload the tokenizer that belongs to the model.",
        )
    if facts.max_positions is not None and spec.training.max_length > facts.max_positions:
        raise ConfigError(
            f"spec.training.maxLength ({spec.training.max_length}) must be at most {facts.max_positions}, the positions"
            f" of {spec.model.uri}",
            f"set it to {facts.max_positions} or less.",
        )
    if facts.has_experts and spec.method.quantization != Quantization.NONE:
        raise ConfigError(
            f"spec.method.quantization ({spec.method.quantization}) must be None for {spec.model.uri}: most of its"
            " weights are those of experts, which bitsandbytes leaves as they are",
            "set it to None, or use a model without experts.",
        )
    check_targets(facts, spec.method.lora.target_modules if spec.method.kind == "LoRA" else [ALL_LINEAR])


def order_labels(facts: ModelFacts, labels: Sequence[str], source: ModelSource) -> list[str]:
    """Return the data's labels in the order of the model's own head where it has one for them, else as they are.

    Raises:
        ModelError: the head has another number of classes, so its weights can't be loaded.
    """
    if not facts.head_labels or sorted(facts.head_labels) == sorted(labels):
        return list(facts.head_labels or labels)
    if len(facts.head_labels) != len(labels):
        raise ModelError(
            f"spec.model.uri ({source.uri}) has a head for {len(facts.head_labels)} labels"
            f" ({wording.show_names(facts.head_labels)}), which must be as many as the training rows have:"
            f" {len(labels)} ({wording.show_names(labels)})",
            "use a model without a head, or rows with the head's labels.",
        )
    return list(labels)


def check_targets(facts: ModelFacts, targets: Sequence[str]) -> None:
    """Check that each LoRA target names a linear layer, where the names are known.

    Raises:
        ModelError: a target matches nothing.
    """
    paths = facts.linear_shapes
    unknown = [name for name in targets if name != ALL_LINEAR and not match_linear(facts, [name])]
    if not paths or not unknown:
        return
    known = sorted({path.rpartition(".")[2] for path in paths})
    nearest = difflib.get_close_matches(unknown[0], known, n=1)
    hint = f"; did you mean {nearest[0]}?" if nearest else ""
    raise ModelError(
        f"spec.method.lora.targetModules ({', '.join(unknown)}) must name linear layers of the model, which has"
        f" {', '.join(known[:_MAX_NAMES_SHOWN])}{hint}",
        f"use names from this list, or {ALL_LINEAR}.",
    )


def match_linear(facts: ModelFacts, targets: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Return the linear layers that LoRA targets mean: a target is the end of a layer's path, at a dot."""
    if ALL_LINEAR in targets:
        return facts.linear_shapes
    return {
        path: shape
        for path, shape in facts.linear_shapes.items()
        if any(path == target or path.endswith(f".{target}") for target in targets)
    }

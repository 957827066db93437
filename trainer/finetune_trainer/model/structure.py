"""What the class of a model makes of its configuration and of the names in its checkpoint, asked of the class itself.

The model is built on torch's meta device: shapes without weights, in a second whatever its size. So heads, new modules,
linear layers and positions are those that the train stage will find, of any architecture, under any name. The prepare
stage asks in a process of its own (`stages.preflight`), since this brings torch; the train stage asks again.
"""

import copy
import logging
import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_api import wording
from finetune_api.errors import ModelError
from finetune_api.kinds.finetunejob.spec import FineTuneJobSpec, MethodKind, ModelSource
from finetune_trainer.model import trial

if TYPE_CHECKING:
    from finetune_trainer.tasks import TaskPreparation

logger = logging.getLogger(__name__)

_POSITIONS = re.compile(r"(^|\.)(position_embeddings?|embed_positions|wpe|positions_embed|pos_embeddings?)$")
"""How architectures call the table of learned or fixed positions; one they add sets of positions together from, such
as those of a page's sides, has another name."""
_REFUSED_BY_PEFT = "PEFT can't adapt them in this architecture"
_FUSED = "the weights of all experts are one tensor, no layer"
_UNUSED = "text doesn't go through them"
_UNCALLED = "the model reads their weights without calling them"
_UNREAD = "the answer doesn't depend on them"


@dataclass(frozen=True, slots=True)
class ModelStructure:
    """The model class, seen through the checkpoint."""

    class_name: str
    model_type: str
    heads: list[str]
    """The task's own head: modules outside the body, with weights."""
    new_modules: list[str]
    """Modules the checkpoint has no weights for: the head, perhaps a pooler."""
    head_labels: list[str]
    """What the classes of the checkpoint's own head are called, by id; empty without such a head."""
    linear: dict[str, tuple[int, int]]
    """Path and shape of every linear layer that an adapter may stand on: not of heads, embeddings and what is below."""
    left_out: dict[str, list[str]] = field(default_factory=dict)
    """Layers that get no adapter under `all-linear`, by the reason."""
    linear_classes: list[str] = field(default_factory=list)
    """Names of the classes of its linear layers."""
    num_experts: int = 0
    """Modules that hold the weights of several experts in one."""
    is_head_tied: bool = False
    """Whether the embeddings of tokens are what gives their logits too."""
    quantized: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Path and shape of every linear layer that bitsandbytes replaces."""
    unquantized: list[str] = field(default_factory=list)
    """Modules that it must leave as they are: heads, what is new, what gives the logits of tokens."""
    max_positions: int | None = None
    """Tokens the model has positions for; None where it needs none."""
    num_token_types: int | None = None
    """Kinds of tokens it tells apart, 0 where it takes none; None where any number will do."""
    num_embeddings: int = 0
    """Tokens it has embeddings for; 0 where tokens are no rows of a table."""
    can_grow: bool = False
    """Whether it can be given embeddings for more tokens."""
    reads_last: bool = False
    """Whether its head reads the last position, whatever stands there: rows must be padded on the left."""
    reads_stop_token: bool = False
    """Whether its head reads the last stop token, of which every row must have as many."""

    @property
    def has_trained_head(self) -> bool:
        """Whether the checkpoint has weights for all of the task's head."""
        return bool(self.heads) and not any(_is_within(name, self.heads) for name in self.new_modules)


def inspect_structure(
    folder: Path, gguf_file: str | None, spec: FineTuneJobSpec, task: "TaskPreparation"
) -> ModelStructure:
    """Build the model without its weights and look at it; torch's random numbers are afterwards where they were.

    Args:
        folder: with the configuration and the headers of the weights.
        gguf_file: name of the one file, for a GGUF model.
        spec: of the run; what only adapters need is not looked at for other methods.
        task: whose head the model gets.

    Raises:
        ModelError: the files don't hold the model that the configuration describes.
    """
    import torch

    # Layers that are built to be looked at are initialised too: a run's own head and dropout shall not depend on that.
    with torch.random.fork_rng(devices=[]):
        return _inspect(folder, gguf_file, spec, task)


def _inspect(folder: Path, gguf_file: str | None, spec: FineTuneJobSpec, task: "TaskPreparation") -> ModelStructure:
    source = spec.model
    model, missing, unexpected = _build_on_meta(folder, gguf_file, source, task)
    heads = _find_heads(model) if task.HAS_OWN_HEAD else []
    check_all_taken(model, unexpected, source)
    new_modules = find_new_modules(model, missing, task, source) if gguf_file is None else heads
    kept = _find_unquantized(model, [*heads, *new_modules])
    linear, left_out = _find_linear(model, kept, is_adapted=spec.method.kind == MethodKind.LORA)
    kept += left_out.get(_UNCALLED, [])
    output, embeddings = model.get_output_embeddings(), _find_embeddings(model)
    found = ModelStructure(
        class_name=type(model).__name__,
        model_type=str(model.config.model_type),
        heads=heads,
        new_modules=new_modules,
        head_labels=[],
        linear=linear,
        left_out=left_out,
        linear_classes=sorted({type(model.get_submodule(name)).__name__ for name in linear}),
        num_experts=len(left_out.get(_FUSED, [])),
        is_head_tied=output is not None and embeddings is not None and output.weight is embeddings,
        quantized=_find_quantized(model, kept),
        unquantized=kept,
        max_positions=_find_max_positions(model),
        num_token_types=_find_token_types(model),
        num_embeddings=0 if embeddings is None else int(embeddings.shape[0]),
        can_grow=embeddings is not None and _can_grow(model, int(embeddings.shape[0])),
        reads_last=any(getattr(module, "summary_type", None) == "last" for module in model.modules()),
        reads_stop_token=task.HAS_OWN_HEAD and bool(model.config.is_encoder_decoder),
    )
    if found.has_trained_head and gguf_file is None:
        labels = [str(name) for _, name in sorted(model.config.id2label.items())]
        found.head_labels.extend(labels)
    return found


def _build_on_meta(
    folder: Path, gguf_file: str | None, source: ModelSource, task: "TaskPreparation"
) -> tuple[Any, list[str], list[str]]:
    """Return the model, the names that the checkpoint lacks, and those that the model has no place for."""
    import torch
    import transformers

    from finetune_trainer.model import facts

    model_class = getattr(transformers, task.MODEL_CLASS)
    try:
        if gguf_file is not None:
            with torch.device("meta"):
                return model_class.from_config(facts.load_config(folder, gguf_file, source)), [], []
        model, report = model_class.from_pretrained(
            folder,
            device_map="meta",
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (ValueError, RuntimeError, OSError, LookupError, TypeError, AttributeError, ImportError) as error:
        raise ModelError(
            f"spec.model.uri ({source.uri}) must hold a model that loads as {task.MODEL_CLASS}:"
            f" {' '.join(str(error).split())[:400]}",
            "check that the folder is complete and its architecture fits spec.task",
        ) from error
    return model, sorted(report["missing_keys"]), sorted(report["unexpected_keys"])


def _find_heads(model: Any) -> list[str]:
    """Name the modules outside the body that have weights; none where the body can't be told from them."""
    children = dict(model.named_children())
    if model.base_model_prefix not in children:
        return []
    return [
        name
        for name, child in children.items()
        if name != model.base_model_prefix and any(True for _ in child.parameters())
    ]


def check_all_taken(model: Any, unexpected: Iterable[str], source: ModelSource) -> None:
    """Check that no weight of the body was left out; another task's head, or a pooler it has no use for, may be.

    Raises:
        ModelError: the configuration describes a smaller model than the files hold.
    """
    prefix = f"{model.base_model_prefix}."
    parts = dict(getattr(model, model.base_model_prefix, model).named_children())
    left = [key for key in sorted(unexpected) if "pooler" not in key]
    # What is no part of this class's body at all is the head of another task, or a decoder it does without.
    if body := [key for key in left if key.removeprefix(prefix).partition(".")[0] in parts]:
        raise ModelError(
            f"spec.model.uri ({source.uri}) must hold the weights its config.json describes; it holds more: "
            f"{wording.show_names(body)}",
            "upload the config.json that belongs to the weights",
        )


def find_new_modules(model: Any, missing: Sequence[str], task: "TaskPreparation", source: ModelSource) -> list[str]:
    """Name the modules the checkpoint had no weights for: the head, perhaps a pooler.

    Raises:
        ModelError: weights beyond the task's head are missing.
    """
    prefix = f"{model.base_model_prefix}."
    found: dict[str, None] = {}
    for key in sorted(missing):
        # Of the body, the module itself; of the head, all of it.
        name = key.rpartition(".")[0] if key.startswith(prefix) else key.partition(".")[0]
        found[name] = None
    body = [name for name in found if name.startswith(prefix) and "pooler" not in name]
    if body or (found and not task.HAS_OWN_HEAD):
        raise ModelError(
            f"spec.model.uri ({source.uri}) must hold all weights of {type(model).__name__}; missing: "
            f"{', '.join(list(found)[:5])}",
            "check that the folder is complete and its architecture fits spec.task",
        )
    return list(found)


def _find_unquantized(model: Any, own: Iterable[str]) -> list[str]:
    """Name what bitsandbytes must leave alone: what is trained as it is, and what gives the logits of tokens."""
    output = model.get_output_embeddings()
    tokens = [name for name, module in model.named_modules() if output is not None and module is output]
    return list(dict.fromkeys([*own, *tokens]))


def _is_within(name: str, modules: Iterable[str]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def _find_linear(
    model: Any, kept: Sequence[str], *, is_adapted: bool
) -> tuple[dict[str, tuple[int, int]], dict[str, list[str]]]:
    """Return the layers for adapters, and those that get none, by the reason; PEFT's say if `is_adapted`."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    linear: dict[str, tuple[int, int]] = {}
    fused: list[str] = []
    for name, module in model.named_modules():
        if _is_within(name, kept):
            continue
        if isinstance(module, (nn.Linear, Conv1D)):
            linear[name] = (module.weight.shape[0], module.weight.shape[1])
        elif "expert" in name and any(item.ndim == 3 for item in module.parameters(recurse=False)):
            fused.append(name)
    refused, towers = _find_refused(model, list(linear)) if is_adapted else [], _find_towers(model)
    unused = [name for name in linear if _is_within(name, towers)]
    tried = trial.try_layers(model, [name for name in linear if name not in unused])
    left_out = {
        _FUSED: fused,
        _REFUSED_BY_PEFT: refused,
        _UNUSED: unused,
        _UNCALLED: tried.uncalled,
        _UNREAD: tried.unread,
    }
    gone = {*refused, *unused, *tried.uncalled, *tried.unread}
    return {name: shape for name, shape in linear.items() if name not in gone}, {
        reason: names for reason, names in left_out.items() if names
    }


def _find_refused(model: Any, names: Sequence[str]) -> list[str]:
    """Name the layers on which PEFT puts no adapter, by trying all, and if it refuses, one layer of each name."""
    kinds: dict[str, str] = {}
    for name in names:
        kinds.setdefault(name.rpartition(".")[2], name)
    if not kinds or _takes_adapters(model, list(kinds.values())):
        return []
    refused = {kind for kind, name in kinds.items() if not _takes_adapters(model, [name])}
    return [name for name in names if name.rpartition(".")[2] in refused]


def _takes_adapters(model: Any, names: list[str]) -> bool:
    import peft

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they are about the trial, not about the model
            peft.inject_adapter_in_model(peft.LoraConfig(target_modules=names), copy.deepcopy(model))
    except ValueError:
        return False
    return True


def _find_towers(model: Any) -> list[str]:
    """Name the modules for images and sound, which no text goes through."""
    return [
        name
        for name, module in model.named_modules()
        if name and (config := getattr(module, "config", None)) is not None and _is_of_other_modality(config, model)
    ]


def _is_of_other_modality(config: Any, model: Any) -> bool:
    parts = ("vision_config", "audio_config", "speech_config", "video_config")
    kinds = {getattr(part, "model_type", None) for name in parts if (part := getattr(model.config, name, None))}
    return getattr(config, "model_type", None) in kinds - {None, model.config.get_text_config().model_type}


def _find_quantized(model: Any, kept: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Return the layers that transformers has bitsandbytes replace: linear by their very class, not by inheritance."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    return {
        name: (module.weight.shape[0], module.weight.shape[1])
        for name, module in model.named_modules()
        if (type(module) is nn.Linear or isinstance(module, Conv1D)) and not _is_within(name, kept)
    }


def _find_max_positions(model: Any) -> int | None:
    config = model.config.get_text_config()
    stated = int(getattr(config, "max_position_embeddings", None) or 0)
    limits, towers = [], _find_towers(model)
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if _POSITIONS.search(name) and weight is not None and weight.ndim == 2 and not _is_within(name, towers):
            # Tables with a padding index begin behind it, others say themselves where they begin.
            padding = getattr(module, "padding_idx", None)
            first = 0 if padding is None else padding + 1
            limits.append(weight.shape[0] - int(getattr(module, "offset", first)))
    if not limits and getattr(config, "relative_attention", False):
        return None
    limits += [stated] if stated > 0 else []
    return min(limits, default=None)


def _find_token_types(model: Any) -> int | None:
    import inspect

    if "token_type_ids" not in inspect.signature(model.forward).parameters:
        return 0
    tables = [module for name, module in model.named_modules() if name.endswith("token_type_embeddings")]
    weights = [module.weight for module in tables if getattr(module, "weight", None) is not None]
    return min((int(weight.shape[0]) for weight in weights), default=None)


def _find_embeddings(model: Any) -> Any:
    """Return the table of token embeddings; None where tokens are no rows of one."""
    try:
        return getattr(model.get_input_embeddings(), "weight", None)
    except NotImplementedError:  # characters that are hashed
        return None


def _can_grow(model: Any, size: int) -> bool:
    """Tell whether the embeddings of `size` tokens can be made more, by doing so."""
    from torch import nn

    grown = copy.deepcopy(model)
    try:
        grown.resize_token_embeddings(size + 1, mean_resizing=False)
    except Exception as error:
        logger.debug("%s can't be given more tokens: %s", type(model).__name__, error)
        return False
    # T5Gemma's decoder has a table of its own, which stays as it was.
    is_left = any(isinstance(module, nn.Embedding) and module.num_embeddings == size for module in grown.modules())
    return int(grown.get_input_embeddings().weight.shape[0]) == size + 1 and not is_left

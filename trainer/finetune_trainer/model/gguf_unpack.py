"""A base model that comes as one GGUF file becomes a plain folder, in the train stage, once for all ranks of a pod."""

import contextlib
import copy
import functools
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import torch
import transformers

from finetune_api import wording
from finetune_api.errors import ModelError
from finetune_api.kinds.finetunejob.spec import ModelSource
from finetune_trainer.model import facts
from finetune_trainer.model.tokenizer import load_tokenizer

logger = logging.getLogger(__name__)

_REMEDY = "give the model's folder of safetensors instead: not all of this file is understood"


def unpack(folder: Path, name: str, source: ModelSource) -> None:
    """Write the GGUF file `name` out beside itself, as transformers saves a model: every weight in float32.

    Args:
        folder: of the file.
        name: of the file in it.
        source: of the model, for errors.

    Raises:
        ModelError: its weights don't fit the architecture.
    """
    began = time.monotonic()
    with _parsed_once():
        config = facts.load_config(folder, name, source)
        loaded = _load(folder, name, copy.deepcopy(config), source)
    # The loaded model has a quantizer that forbids training and saving: its weights move into one without.
    with torch.device("meta"):
        model = type(loaded)(config)
    model.load_state_dict(loaded.state_dict(), strict=True, assign=True)
    model.tie_weights()
    model.save_pretrained(folder)
    load_tokenizer(folder, name, source).save_pretrained(folder)
    logger.info("%s unpacked in %.1f s", name, time.monotonic() - began)


def _load(folder: Path, name: str, config: Any, source: ModelSource) -> Any:
    """Load the model of a GGUF file with every weight in float32.

    Raises:
        ModelError: there are too few weights, or some that don't fit.
    """
    model_class: Any = transformers.AutoModelForCausalLM
    arguments = {"local_files_only": True, "trust_remote_code": False}
    try:
        loaded, report = model_class.from_pretrained(
            folder, gguf_file=name, config=config, dtype=torch.float32, output_loading_info=True, **arguments
        )
    except (ValueError, RuntimeError, OSError, LookupError) as error:
        raise ModelError(
            f"spec.model.uri ({source.uri}) must hold weights that transformers can unpack;"
            f" {wording.show_error(error)}",
            _REMEDY,
        ) from error
    if missing := sorted(report["missing_keys"]):
        # They would be random numbers, with no more than a warning.
        raise ModelError(
            f"spec.model.uri ({source.uri}) must hold all weights of {type(loaded).__name__}; missing: "
            f"{wording.show_names(missing)}",
            _REMEDY,
        )
    return loaded


@contextlib.contextmanager
def _parsed_once() -> Iterator[None]:
    """Have transformers read a file's metadata, and build its table of tensor names, once instead of again and again.

    It does the one for the configuration and for the weights (4 s each with 49,000 tokens), the other for every module
    (9 s with 30 layers; transformers 5.23, one core).
    """
    originals = {name: getattr(gguf, name) for name in ("GGUFReader", "get_tensor_name_map")}
    for name, original in originals.items():
        setattr(gguf, name, functools.cache(original))
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(gguf, name, original)

"""The trained model as it is published."""

import copy
import json
from pathlib import Path
from typing import Any

from finetune_api.kinds.finetunejob.spec import FineTuneJobSpec, MethodKind
from finetune_trainer.model import unwrap


def save_model(model: Any, spec: FineTuneJobSpec, folder: Path) -> None:
    """Write an adapter or a full model, safetensors only, without a trace of this machine's paths."""
    if spec.method.kind != MethodKind.LORA:
        model.save_pretrained(folder)
        return
    # "auto" would ask the model hub whether the vocabulary has grown; it never does here.
    model.save_pretrained(folder, save_embedding_layers=False)
    _forget_place_of_base(folder / "adapter_config.json")
    # Labels, padding and kind of problem are those of the base with this adapter: loaders read them from here.
    config = copy.deepcopy(unwrap.get_base(model).config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.save_pretrained(folder)


def _forget_place_of_base(path: Path) -> None:
    """Leave out where the base lies: on this machine, or in a store that nobody's loader knows; the card names it."""
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings["base_model_name_or_path"] = None
    path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")

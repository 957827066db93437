"""The trained model as it is published."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_api.kinds.finetunejob.spec import FineTuneJobSpec, MethodKind

if TYPE_CHECKING:
    pass


def save_model(model: Any, spec: FineTuneJobSpec, folder: Path) -> None:
    """Write an adapter or a full model, safetensors only, without a trace of this machine's paths."""
    if spec.method.kind == MethodKind.LORA:
        model.peft_config["default"].base_model_name_or_path = spec.model.uri
        # "auto" would ask the model hub whether the vocabulary has grown; it never does here.
        model.save_pretrained(folder, save_embedding_layers=False)
    else:
        model.save_pretrained(folder)

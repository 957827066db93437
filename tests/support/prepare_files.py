"""The prepare stage on files that lie here: choosing, reading, tokenizing and reporting, without a store."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finetune_api.artifacts import S3Address
from finetune_api.kinds.finetunejob.spec import FineTuneJobSpec
from finetune_trainer import tasks
from finetune_trainer.data import sources
from finetune_trainer.data.sources import LocalFile
from finetune_trainer.model import facts as base_model
from finetune_trainer.model import structure
from finetune_trainer.model import tokenizer as tokenizer_of
from finetune_trainer.stages import prepare
from finetune_trainer.stages.prepare import Model, Prepared
from finetune_trainer.storage import RemoteFile

Files = Mapping[str, bytes]

_MODELS = {"SequenceClassification": "encoder", "CausalLM": "decoder", "InstructionTuning": "decoder"}


def build_spec(task: str, columns: Mapping[str, str], splits: set[str], **training: Any) -> FineTuneJobSpec:
    addresses = {split: {"uri": f"s3://data/{split}/"} for split in splits}
    return FineTuneJobSpec.model_validate(
        {
            "task": task,
            "model": {"uri": "s3://models/tiny/"},
            "data": [{"name": "d", **addresses, "columns": dict(columns)}],
            "training": {"maxLength": 64, **training},
            "output": {"uri": "s3://runs/x"},
            "resources": {"gpus": 0, "memory": "4Gi"},
        }
    )


def prepare_files(
    files: Files, columns: Mapping[str, str], task: str, models: dict[str, Path], scratch: Path, **training: Any
) -> Prepared:
    """Choose, read and prepare files as the stage does, but for the store."""
    splits = {name.partition("/")[0] for name in files}
    spec = build_spec(task, columns, splits, **training)
    local: dict[str, list[LocalFile]] = {}
    warnings: list[str] = []
    for split in sorted(splits):
        names = sorted(name.partition("/")[2] for name in files if name.startswith(f"{split}/"))
        remote = [RemoteFile(S3Address("data", f"{split}/{name}"), name, 1, "") for name in names]
        chosen, warned = sources.select_data_files(remote, f"spec.data[0].{split}.uri", f"s3://data/{split}/")
        warnings += warned
        local[split] = []
        for file in chosen:
            path = scratch / split / file.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(files[f"{split}/{file.name}"])
            local[split].append(LocalFile(path, file.name))
    folder = scratch / "prepared"
    folder.mkdir(parents=True)
    return prepare.prepare_rows(spec, load_model(models[_MODELS[task]], spec), local, warnings, folder)


def load_model(folder: Path, spec: FineTuneJobSpec) -> Model:
    """Load what the rows are prepared for."""
    facts = base_model.load_facts(folder, None, spec.model)
    tokenizer = tokenizer_of.load_tokenizer(folder, None, spec.model)
    found = structure.inspect_structure(folder, None, spec, tasks.find_preparation(spec.task))
    return prepare.build_model(spec, facts, found, tokenizer)

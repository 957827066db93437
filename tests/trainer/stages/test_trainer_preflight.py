"""The look at a model's class by a process of its own: the same answer, the same refusal."""

import json
import sys
from pathlib import Path

import pytest
import tiny_models
from training_runs import build_config

from finetune_api.errors import ModelError
from finetune_api.kinds.finetunejob.spec import FineTuneJobSpec
from finetune_trainer import tasks
from finetune_trainer.model.structure import ModelStructure, inspect_structure
from finetune_trainer.stages import preflight


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_models.build_encoder(tmp_path / "encoder")


def build_spec() -> FineTuneJobSpec:
    return build_config("SequenceClassification", "encoder", {}, {"method": {"kind": "LoRA"}}).spec


def ask_elsewhere(spec: FineTuneJobSpec, folder: Path, monkeypatch: pytest.MonkeyPatch) -> ModelStructure:
    """Ask as a prepare stage does, which has no torch."""
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "torch", None)
        with preflight.inspect_behind(spec, folder, None) as pending:
            return pending.wait()


def test_another_process_gives_the_same_answer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = build_spec()
    here = inspect_structure(folder, None, spec, tasks.find_preparation(spec.task))
    assert ask_elsewhere(spec, folder, monkeypatch) == here


def test_a_refusal_comes_with_its_words(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_hidden_layers": 3}))
    with pytest.raises(ModelError) as caught:
        ask_elsewhere(build_spec(), folder, monkeypatch)
    assert (
        "must hold all weights of BertForSequenceClassification; missing: bert.encoder.layer.2" in caught.value.message
    )
    assert caught.value.remedy == "check that the folder is complete and its architecture fits spec.task"

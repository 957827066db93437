"""What a stage's process leaves out, and that it does its work without."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny_models

from finetune_api.kinds.finetunejob.spec import FineTuneJobSpec
from finetune_api.run import Stage
from finetune_trainer.pod import imports

UNNEEDED = [
    pytest.param(Stage.PREPARE, {}, ["torch"], id="a tokenizer needs no torch"),
    pytest.param(Stage.PREPARE, {"model": {"uri": "s3://models/a.gguf"}}, [], id="one in a GGUF file does"),
    pytest.param(Stage.TRAIN, {}, ["bitsandbytes"], id="what is not quantized needs no bitsandbytes"),
    pytest.param(Stage.TRAIN, {"method": {"kind": "LoRA", "quantization": "NF4"}}, [], id="what is does"),
]


def build_spec(**changes: Any) -> FineTuneJobSpec:
    return FineTuneJobSpec.model_validate(
        {
            "task": "SequenceClassification",
            "model": {"uri": "s3://models/encoder/"},
            "data": [{"name": "d", "train": {"uri": "s3://data/t.jsonl"}}],
            "output": {"uri": "s3://runs/x"},
            **changes,
        }
    )


@pytest.mark.parametrize(("stage", "changes", "want"), UNNEEDED)
def test_only_what_a_stage_has_no_use_for_is_left_out(stage: Stage, changes: dict[str, Any], want: list[str]) -> None:
    assert imports.find_unneeded(stage, build_spec(**changes)) == want


WITHOUT_TORCH = """
import sys
from pathlib import Path
from finetune_api.kinds.finetunejob.spec import ModelSource
from finetune_trainer.model import facts as base_model
from finetune_trainer import tasks
from finetune_trainer.pod import imports

source = ModelSource(uri="s3://models/encoder/")
imports.leave_out(["torch"])
from finetune_trainer.stages import prepare
from finetune_trainer.model.tokenizer import load_tokenizer
facts = base_model.load_facts(Path(sys.argv[1]), None, source)
tokenizer = load_tokenizer(Path(sys.argv[1]), None, source)
print(tasks.find_fitting_tasks(facts), tokenizer("a film")["input_ids"][:1], sys.modules["torch"])
"""


def test_the_prepare_stage_reads_a_model_without_importing_torch(tmp_path: Path) -> None:
    folder = tiny_models.build_encoder(tmp_path / "encoder")

    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, str(folder)], capture_output=True, text=True, check=False
    )

    assert (ended.stdout, ended.stderr) == ("[<Task.SEQUENCE_CLASSIFICATION: 'SequenceClassification'>] [2] None\n", "")

"""A prepare stage on the bench whose inputs are good until a test changes them."""

from pathlib import Path
from typing import Any

import pytest
from prepare_bench import PrepareBench, make_reviews

from finetune_api.errors import FineTuneError
from finetune_api.run import RunConfig, TerminationMessage
from finetune_trainer.stages import prepare

PREPARED = "out/runs/uid-1/prepared/1/"


class PrepareStage:
    """The stage, with the bench it runs on."""

    def __init__(self, bench: PrepareBench, models: dict[str, Path], scratch: Path) -> None:
        self.bench, self.models, self.scratch = bench, models, scratch

    def build(self, base: str = "encoder", **changes: Any) -> RunConfig:
        """Upload a model and return the configuration of a classification, or of what `changes` make of it."""
        spec = {
            "task": "SequenceClassification",
            "model": {"uri": self.bench.put_model(self.models[base])},
            "data": [{"name": "reviews", "train": {"uri": self.bench.uri("train.jsonl")}}],
            "training": {"maxLength": 32},
        }
        if "train.jsonl" not in self.bench.list_keys():
            self.bench.put("train.jsonl", make_reviews(120))
        return self.bench.build_config(**(spec | changes))

    def run(self, config: RunConfig) -> TerminationMessage:
        return prepare.run(config, self.scratch)

    def fail(self, config: RunConfig, want: type[FineTuneError]) -> FineTuneError:
        """Run, and return the error that ended it; nothing that counts as prepared may lie in the store."""
        with pytest.raises(FineTuneError) as caught:
            self.run(config)
        assert isinstance(caught.value, want), repr(caught.value)
        assert caught.value.message
        assert caught.value.remedy
        assert f"{PREPARED}prepared.json" not in self.bench.list_keys()
        return caught.value


def build_data(bench: PrepareBench, **files: str) -> list[dict[str, Any]]:
    """Return `spec.data` of files of the bench, by split."""
    return [{"name": "d", **{split: {"uri": bench.uri(key)} for split, key in files.items()}}]

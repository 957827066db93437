"""An option without effect is never accepted: every field, changed from its default, in every context."""

from typing import Any

import pytest
from manifests import edit_manifest, make_manifest

from finetune_api import validation

CHANGED: dict[str, Any] = {
    "model.sha256": "0" * 64,
    "data.0.columns": {"text": "words"},
    "split.validation": "0.2",
    "split.test": "0.2",
    "split.stratify": False,
    "method.quantization": "NF4",
    "method.lora.rank": 16,
    "method.lora.alpha": 32,
    "method.lora.dropout": "0.1",
    "method.lora.targetModules": ["query"],
    "method.lora.variant": "DoRA",
    "training.epochs": "2",
    "training.maxSteps": 100,
    "training.batchSize": 32,
    "training.learningRate": "1e-4",
    "training.scheduler": "cosine",
    "training.warmupFraction": "0.1",
    "training.weightDecay": "0.1",
    "training.maxLength": 64,
    "training.specialTokensInText": "Text",
    "training.rowsWithoutTarget": "Drop",
    "training.omittedTurns": "Warn",
    "training.packing": False,
    "training.precision": "Float32",
    "training.seed": 1,
    "training.earlyStopping": {"patience": 1},
    "evaluation.every": "End",
    "evaluation.everySteps": 10,
    "evaluation.bestMetric": "loss",
    "evaluation.compareWithBase": False,
    "storage.secretName": "s3",
    "storage.endpointURL": "https://s3.example.com",
    "storage.region": "eu-west-1",
    "storage.addressingStyle": "path",
    "resources.gpus": 2,
    "resources.cpu": "2",
    "resources.memory": "8Gi",
    "resources.scratch": "20Gi",
    "resources.gpuResource": "amd.com/gpu",
    "placement.nodeSelector": {"pool": "a"},
    "placement.tolerations": [{"operator": "Exists"}],
    "placement.priorityClassName": "high",
    "placement.queueName": "team",
    "placement.runtimeClassName": "nvidia",
    "placement.serviceAccountName": "trainer",
    "trainer.image": "r/t:1",
    "trainer.imagePullSecrets": [{"name": "pull"}],
    "trainer.env": [{"name": "TZ", "value": "UTC"}],
    "runPolicy.suspend": True,
    "runPolicy.backoffLimit": 1,
    "runPolicy.activeDeadlineSeconds": 100,
    "runPolicy.pendingDeadlineSeconds": 100,
    "runPolicy.ttlSecondsAfterFinished": 100,
    "runPolicy.checkpoint.everySeconds": 60,
    "runPolicy.checkpoint.keep": 3,
    "runPolicy.checkpoint.keepAfterSuccess": True,
    "runPolicy.preemptionLimit": 5,
}

NO_ROWS = {"split": {"validation": "0"}}
LORA = {f"method.lora.{name}" for name in ("rank", "alpha", "dropout", "targetModules", "variant")}
EVERY_STEPS = "evaluation.everySteps"
TARGET = "training.rowsWithoutTarget"
TURNS = "training.omittedTurns"
CONTEXTS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "the defaults": ({}, {EVERY_STEPS}),
    "Full": ({"method": {"kind": "Full"}}, {EVERY_STEPS, "method.quantization", *LORA}),
    "HeadOnly": ({"method": {"kind": "HeadOnly"}}, {EVERY_STEPS, "method.quantization", *LORA}),
    "a quantized base": ({"method": {"quantization": "Int8"}}, {EVERY_STEPS}),
    "no GPU": ({"resources": {"gpus": 0}}, {EVERY_STEPS, "resources.gpuResource"}),
    "a constant rate": ({"training": {"scheduler": "constant"}}, {EVERY_STEPS, "training.warmupFraction"}),
    "a number of epochs": ({"training": {"epochs": "1"}}, {EVERY_STEPS, "training.maxSteps"}),
    "a number of steps": ({"training": {"maxSteps": 5}}, {EVERY_STEPS, "training.epochs"}),
    "an evaluation at the end": ({"evaluation": {"every": "End"}}, {EVERY_STEPS, "training.earlyStopping"}),
    "an evaluation by steps": ({"evaluation": {"every": "Steps", "everySteps": 5}}, {"evaluation.every"}),
    "no validation rows": (
        NO_ROWS,
        {EVERY_STEPS, "training.earlyStopping", "evaluation.every", "evaluation.bestMetric"}
        | {"evaluation.compareWithBase"},
    ),
    "no validation rows, but test rows": (
        {"split": {"validation": "0", "test": "0.2"}},
        {EVERY_STEPS, "training.earlyStopping", "evaluation.every", "evaluation.bestMetric"},
    ),
    "a validation file": (
        {"data": [{"name": "a", "train": {"uri": "s3://data/t"}, "validation": {"uri": "s3://data/v"}}]},
        {EVERY_STEPS, "split.validation", "split.stratify"},
    ),
    "a test file": (
        {"data": [{"name": "a", "train": {"uri": "s3://data/t"}, "test": {"uri": "s3://data/e"}}]},
        {EVERY_STEPS, "split.test"},
    ),
    "a language model": ({"task": "CausalLM"}, {EVERY_STEPS, "split.stratify"}),
    "instructions": ({"task": "InstructionTuning"}, {EVERY_STEPS, "split.stratify"}),
}
"""A context → the edits that make it, and the fields that would do nothing in it."""

OF_OTHER_TASKS = {"SequenceClassification": {TARGET, TURNS}, "CausalLM": {TURNS}, "InstructionTuning": set()}
"""What would do nothing whatever else the job says."""
NO_TWO_CHANGES = {
    ("no validation rows", "split.validation"),
    ("a language model", "data.0.columns"),
    ("instructions", "data.0.columns"),
}
"""Where the changed field takes the context away, or the value is another task's."""


BLAMED = {"training.epochs": "training.maxSteps", "evaluation.every": "evaluation.everySteps"}
"""Of two options that exclude one another, the one that is named."""


@pytest.mark.parametrize("context", CONTEXTS)
def test_exactly_the_options_without_effect_are_refused_and_named(context: str) -> None:
    edits, without_effect = CONTEXTS[context]
    base = make_manifest()
    base["spec"] |= edits
    assert validation.validate_manifest(base) == []
    refused = {}
    for path, value in CHANGED.items():
        errors = validation.validate_manifest(edit_manifest(base, f"spec.{path}", value))
        if errors and (context, path) not in NO_TWO_CHANGES:
            refused[path] = [error.path for error in errors]
    assert set(refused) == without_effect | OF_OTHER_TASKS[base["spec"]["task"]]
    for path, named in refused.items():
        assert {f"spec.{path}", f"spec.{BLAMED.get(path, path)}"} & set(named), (path, named)


def test_every_field_is_part_of_the_sweep() -> None:
    changed = {path.replace(".0", "[]") for path in CHANGED}
    paths = validation.build_field_paths()
    leaves = {path for path in paths if not any(other.startswith((f"{path}.", f"{path}[].")) for other in paths)}
    left = {
        leaf
        for leaf in leaves
        if not any(leaf == path or leaf.startswith((f"{path}.", f"{path}[].")) for path in changed)
    }
    assert left == {
        "task",  # is a context
        "model.uri", "output.uri", "data[].name", "data[].train.uri", "method.kind",  # make the object
        "data[].validation.uri", "data[].test.uri",  # contexts
        "data[].instruction", "data[].weight", "method.preference", "output.merge", "resources.nodes",  # not built yet
    }  # fmt: skip

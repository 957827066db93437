"""Names of other tools and abbreviations lead to ours; nothing is ever read under them."""

import pytest
from manifests import make_manifest

from finetune_api import aliases, validation

MEANT = [
    ("training", "lr", "learningRate"),
    ("training", "learning_rate", "learningRate"),
    ("training", "LearningRate", "learningRate"),
    ("training", "num_epochs", "epochs"),
    ("training", "num_train_epochs", "epochs"),
    ("training", "per_device_train_batch_size", "batchSize"),
    ("training", "max_seq_length", "maxLength"),
    ("training", "bf16", "precision"),
    ("training", "warmup_ratio", "warmupFraction"),
    ("training", "lr_scheduler_type", "scheduler"),
    ("training", "steps", "maxSteps"),
    ("training", "lora_r", "spec.method.lora.rank"),
    ("training", "lora_alpha", "spec.method.lora.alpha"),
    ("training", "eval_steps", "spec.evaluation.everySteps"),
    ("training", "gpus", "spec.resources.gpus"),
    ("method", "target_modules", "spec.method.lora.targetModules"),
    ("method", "loraRank", "spec.method.lora.rank"),
    ("method", "load_in_4bit", "quantization"),
    ("method.lora", "r", "rank"),
    ("method.lora", "lora_dropout", "dropout"),
    ("method.lora", "target_modules", "targetModules"),
    ("method.lora", "use_dora", "variant"),
    ("split", "val_size", "validation"),
    ("evaluation", "metric_for_best_model", "bestMetric"),
    ("output", "output_dir", "uri"),
    ("storage", "endpointUrl", "endpointURL"),
    ("storage", "endpoint", "endpointURL"),
    ("resources", "num_gpus", "gpus"),
    ("runPolicy", "timeout", "activeDeadlineSeconds"),
    ("placement", "serviceAccount", "serviceAccountName"),
]


@pytest.mark.parametrize(("place", "name", "want"), MEANT, ids=[f"{place}.{name}" for place, name, _ in MEANT])
def test_a_name_of_another_tool_is_answered_with_ours(place: str, name: str, want: str) -> None:
    manifest = make_manifest()
    node = manifest["spec"]
    for part in place.split("."):
        node = node.setdefault(part, {})
    node[name] = "1"
    errors = [str(error) for error in validation.validate_manifest(manifest)]
    assert errors == [f"spec.{place}.{name} is not a known field; did you mean {want}?"]


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("learningRate", "spec.training.learningRate"),
        ("base_model", "spec.model.uri"),
        ("dataset", "data"),
        ("gpus", "spec.resources.gpus"),
        ("uri", None),
        ("flavour", None),
    ],
)
def test_at_the_top_the_whole_path_is_told_or_nothing_is_guessed(name: str, want: str | None) -> None:
    manifest = make_manifest()
    manifest["spec"][name] = "1"
    [error] = validation.validate_manifest(manifest)
    assert error.message == "is not a known field; " + (f"did you mean {want}?" if want else "remove it")


def test_a_field_of_a_data_set_is_known_by_its_path() -> None:
    manifest = make_manifest()
    manifest["spec"]["data"][0]["eval_dataset"] = {"uri": "s3://data/v.jsonl"}
    manifest["spec"]["data"][0]["path"] = "x"
    assert [error.message for error in validation.validate_manifest(manifest)] == [
        "is not a known field; did you mean validation?",
        "is not a known field; did you mean spec.data[].train.uri?",
    ]


def test_every_alias_leads_to_a_field_of_the_spec() -> None:
    paths = validation.build_field_paths()
    assert [path for path in aliases.FIELDS.values() if path not in paths] == []
    assert len(aliases.FIELDS) > 200


def test_no_alias_is_itself_the_name_of_the_field_it_leads_to() -> None:
    same = [name for name, path in aliases.FIELDS.items() if name == path.rpartition(".")[2].lower()]
    assert same == []

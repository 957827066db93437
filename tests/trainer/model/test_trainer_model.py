"""What is loaded, what is trained, what is frozen, and which models are refused by name."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
import transformers
from training_runs import build_config

from finetune_api.errors import ModelError
from finetune_api.kinds.finetunejob.spec import FineTuneJobSpec, Precision, Task
from finetune_trainer import tasks
from finetune_trainer.model import load as model
from finetune_trainer.model import save
from finetune_trainer.model.load import LoadedModel
from finetune_trainer.model.method import apply_method, count_trainable
from finetune_trainer.tasks import TaskPreparation

CPU = torch.device("cpu")
CLASSIFIER = tasks.find_preparation(Task.SEQUENCE_CLASSIFICATION)
LANGUAGE = tasks.find_preparation(Task.CAUSAL_LM)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    tiny_models.build_encoder(folder / "encoder")
    tiny_models.build_decoder(folder / "decoder")
    small = transformers.DistilBertConfig(vocab_size=100, dim=32, hidden_dim=64, n_layers=1, n_heads=2)
    transformers.DistilBertModel(small).save_pretrained(folder / "distilled")
    return folder


def build_spec(**method: Any) -> FineTuneJobSpec:
    return build_config("CausalLM", "decoder", {}, {"method": method}).spec


def load(folder: Path, spec: FineTuneJobSpec, task: TaskPreparation, precision: str = "Float32") -> LoadedModel:
    labels = ["a", "b", "c"] if task.HAS_OWN_HEAD else []
    return model.load_base(folder, spec, task=task, labels=labels, precision=Precision(precision), device=CPU)


def list_trained(tuned: Any) -> list[str]:
    """Name what is trained, without peft's wrappings and with LoRA's matrices as one."""
    names = [name for name, item in tuned.named_parameters() if item.requires_grad]
    return sorted({name.partition("modules_to_save.default.")[0] if "modules_to_save" in name else
                   "adapter" if "lora_" in name else name for name in names})  # fmt: skip


def test_everything_new_is_trained_and_published_with_an_adapter(folder: Path, tmp_path: Path) -> None:
    spec = build_spec(kind="LoRA")
    loaded = load(folder / "distilled", spec, CLASSIFIER)

    tuned = apply_method(loaded, spec, CLASSIFIER)
    save.save_model(tuned, spec, tmp_path)

    assert loaded.structure.new_modules == ["classifier", "pre_classifier"]
    assert list_trained(tuned) == ["adapter", "base_model.model.classifier.", "base_model.model.pre_classifier."]
    from safetensors import safe_open

    with safe_open(tmp_path / "adapter_model.safetensors", "pt") as file:
        saved = [name for name in file.keys() if "lora_" not in name]  # noqa: SIM118 - not a dict
    assert sorted(saved) == [
        f"base_model.model.{name}" for name in
        ("classifier.bias", "classifier.weight", "pre_classifier.bias", "pre_classifier.weight")
    ]  # fmt: skip


@pytest.mark.parametrize("quantization", ["Int8", "NF4"])
def test_as_many_layers_are_quantized_as_the_prepare_stage_says(folder: Path, quantization: str) -> None:
    spec = build_spec(kind="LoRA", quantization=quantization)
    loaded = load(folder / "encoder", spec, CLASSIFIER)

    tuned = apply_method(loaded, spec, CLASSIFIER)

    # Six in each of two layers, and the pooler.
    assert model.count_quantized(tuned) == len(loaded.structure.quantized) == 13


@pytest.mark.parametrize("quantization", ["Int8", "NF4"])
def test_a_pooler_the_checkpoint_lacks_is_trained_whole_on_a_quantized_base(
    folder: Path, tmp_path: Path, quantization: str
) -> None:
    encoder = transformers.AutoModel.from_pretrained(folder / "encoder", add_pooling_layer=False)
    encoder.save_pretrained(tmp_path / "without-pooler")
    spec = build_spec(kind="LoRA", quantization=quantization)

    loaded = load(tmp_path / "without-pooler", spec, CLASSIFIER)
    tuned = apply_method(loaded, spec, CLASSIFIER)

    assert loaded.structure.new_modules == ["bert.pooler.dense", "classifier"]
    trained = {name for name, item in tuned.named_parameters() if item.requires_grad and "lora_" not in name}
    assert {name.partition(".modules_to_save")[0] for name in trained} == {
        f"base_model.model.{name}" for name in loaded.structure.new_modules
    }
    assert {item.dtype for name, item in tuned.named_parameters() if name in trained} == {torch.float32}


METHODS = {
    "head only trains what is new": ({"kind": "HeadOnly"}, ["classifier.bias", "classifier.weight"]),
    "named layers get an adapter, and no others": (
        {"kind": "LoRA", "lora": {"targetModules": ["query"]}},
        ["adapter", "base_model.model.classifier."],
    ),
}


@pytest.mark.parametrize(("method", "want"), METHODS.values(), ids=METHODS.keys())
def test_a_method_trains_exactly_this(folder: Path, method: dict[str, Any], want: list[str]) -> None:
    spec = build_spec(**method)

    assert list_trained(apply_method(load(folder / "encoder", spec, CLASSIFIER), spec, CLASSIFIER)) == want


def test_full_fine_tuning_trains_every_weight(folder: Path) -> None:
    spec = build_spec(kind="Full")

    tuned = apply_method(load(folder / "decoder", spec, LANGUAGE), spec, LANGUAGE)

    assert count_trainable(tuned) == tuned.num_parameters()


DTYPES = [
    (LANGUAGE, {"kind": "LoRA"}, "Float32", "float32", False),
    (LANGUAGE, {"kind": "LoRA"}, "BFloat16", "bfloat16", False),
    (LANGUAGE, {"kind": "Full"}, "BFloat16", "float32", True),
    (LANGUAGE, {"kind": "HeadOnly"}, "BFloat16", "float32", True),
    (CLASSIFIER, {"kind": "LoRA"}, "BFloat16", "bfloat16", True),
    (CLASSIFIER, {"kind": "LoRA", "quantization": "NF4"}, "BFloat16", "float32", True),
    (CLASSIFIER, {"kind": "LoRA"}, "Float32", "float32", False),
]


@pytest.mark.parametrize(("task", "method", "precision", "want_dtype", "want_autocast"), DTYPES)
def test_trained_base_weights_stay_in_float32(
    folder: Path,
    *,
    task: TaskPreparation,
    method: dict[str, Any],
    precision: str,
    want_dtype: str,
    want_autocast: bool,
) -> None:
    spec = build_spec(**method)

    tuned = apply_method(load(folder / "decoder", spec, task, precision), spec, task)

    assert str(next(iter(tuned.parameters())).dtype) == f"torch.{want_dtype}"
    assert {item.dtype for item in tuned.parameters() if item.requires_grad} == {torch.float32}
    assert model.is_autocast(spec, Precision(precision), task) is want_autocast


def test_auto_precision_on_a_cpu_is_float32() -> None:
    assert model.decide_precision(Precision.AUTO, CPU) == Precision.FLOAT32


def test_target_modules_that_match_nothing_are_answered_with_those_there_are(folder: Path) -> None:
    spec = build_spec(kind="LoRA", lora={"targetModules": ["attention"]})

    with pytest.raises(ModelError, match=r"targetModules \(attention\) must name linear layers .*q_proj"):
        apply_method(load(folder / "decoder", spec, LANGUAGE), spec, LANGUAGE)


def test_a_language_model_without_its_head_is_refused(folder: Path) -> None:
    spec = build_spec(kind="Full")
    whole = transformers.AutoModelForCausalLM.from_pretrained(folder / "decoder")
    whole.model.save_pretrained(folder / "headless")

    with pytest.raises(ModelError, match=r"must hold all weights of LlamaForCausalLM; missing: lm_head"):
        load(folder / "headless", spec, LANGUAGE)


def test_weights_that_the_configuration_leaves_out_are_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "decoder", tmp_path / "short")
    path = tmp_path / "short" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_hidden_layers": 1}))

    with pytest.raises(
        ModelError, match=r"must hold the weights its config\.json describes; it holds more: model\.layers"
    ):
        load(tmp_path / "short", build_spec(kind="Full"), LANGUAGE)


def test_the_head_of_another_task_may_be_left_out(folder: Path) -> None:
    loaded = load(folder / "decoder", build_spec(kind="LoRA"), CLASSIFIER)

    assert loaded.structure.new_modules == ["score"]


def test_a_pickled_model_is_never_read(folder: Path, tmp_path: Path) -> None:
    spec = build_spec(kind="Full")
    (tmp_path / "config.json").write_text((folder / "decoder" / "config.json").read_text())
    torch.save({}, tmp_path / "pytorch_model.bin")

    with pytest.raises(ModelError, match="must hold a model that loads as AutoModelForCausalLM"):
        load(tmp_path, spec, LANGUAGE)

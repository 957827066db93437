"""What the train stage publishes gives, loaded with the code of its model card, what its evaluation says."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
import training_runs
import transformers
from training_runs import RunBench, load_json, method

from finetune_trainer.stages import train

# Loading an adapter as a user does, peft asks transformers for a property by its old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

CLASSIFICATION = "SequenceClassification"


@pytest.fixture(scope="module")
def bench(s3_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunBench]:
    with training_runs.open_bench(s3_server, tmp_path_factory.mktemp("models")) as bench:
        yield bench


def load_published(base: Path, folder: Path) -> Any:
    """Load a published folder with the code of its model card."""
    from bitsandbytes.nn.modules import Linear4bit

    card = (folder / "README.md").read_text(encoding="utf-8")
    [code] = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    loaded: dict[str, Any] = {"BASE": str(base), "MODEL": str(folder)}
    exec(code, loaded)  # noqa: S102 - it is what is tested
    for module in loaded["model"].modules():
        if isinstance(module, Linear4bit):
            # Some processors compute NF4 in bfloat16 otherwise: right, but only to 1e-3, which the card allows for.
            module.support_avx512bf16_for_cpu = False
    return loaded["model"]


def measure_difference(model: Any, samples: list[dict[str, Any]]) -> float:
    """Return the largest difference between a model's logits and those in evaluation.json."""
    worst = 0.0
    for sample in samples:
        with torch.no_grad():
            logits = model(torch.tensor([sample["inputIds"]])).logits[0]
        if "logits" in sample:
            worst = max(worst, float((logits - torch.tensor(sample["logits"])).abs().max()))
        else:
            worst = max(worst, *(abs(float(logits[-1, item["token"]]) - item["logit"]) for item in sample["last"]))
    return worst


RUNS = [
    pytest.param(CLASSIFICATION, "encoder", method("Full"), id="classify, full"),
    pytest.param(CLASSIFICATION, "encoder", method("HeadOnly"), id="classify, head only"),
    pytest.param(CLASSIFICATION, "encoder", method("LoRA"), id="classify, LoRA"),
    pytest.param(CLASSIFICATION, "encoder", method("LoRA", "Int8"), id="classify, LoRA on int8"),
    pytest.param(CLASSIFICATION, "encoder", method("LoRA", "NF4"), id="classify, LoRA on NF4"),
    pytest.param(CLASSIFICATION, "decoder", method("LoRA", variant="DoRA"), id="classify with a decoder, DoRA"),
    pytest.param("CausalLM", "decoder", method("Full"), id="continue, full"),
    pytest.param("CausalLM", "decoder", method("HeadOnly"), id="continue, head only"),
    pytest.param("CausalLM", "decoder", method("LoRA"), id="continue, LoRA"),
    pytest.param("CausalLM", "decoder", method("LoRA", "Int8"), id="continue, LoRA on int8"),
    pytest.param("CausalLM", "decoder", method("LoRA", "NF4"), id="continue, LoRA on NF4"),
    pytest.param("InstructionTuning", "tied", method("Full"), id="instruct a tied model, full"),
    pytest.param("InstructionTuning", "decoder", method("HeadOnly"), id="instruct, head only"),
    pytest.param("InstructionTuning", "tied", method("LoRA", variant="RSLoRA"), id="instruct, rank-stabilized LoRA"),
    pytest.param("InstructionTuning", "decoder", method("LoRA", "Int8"), id="instruct, LoRA on int8"),
    pytest.param("InstructionTuning", "decoder", method("LoRA", "NF4", "DoRA"), id="instruct, DoRA on NF4"),
    pytest.param("InstructionTuning", "gguf", method("LoRA"), id="instruct a GGUF file, LoRA"),
    pytest.param("InstructionTuning", "gguf", method("LoRA", "NF4"), id="instruct a GGUF file, LoRA on NF4"),
    pytest.param("CausalLM", "gguf", method("Full"), id="continue a GGUF file, full"),
    pytest.param(CLASSIFICATION, "gguf", method("LoRA", "Int8"), id="classify with a GGUF file, LoRA on int8"),
]


@pytest.mark.parametrize(("task", "model", "chosen"), RUNS)
def test_what_is_published_gives_the_logits_of_its_evaluation(
    bench: RunBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, task: str, model: str, chosen: dict[str, Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    config = bench.prepare(task, model, spec={"method": chosen})

    end = train.run(config, tmp_path / "scratch")

    manifest, digest = bench.fetch_manifest(config)
    assert (end.exit_code, end.reason, end.manifest_sha256, end.step) == (0, "Completed", digest, 4)
    folder = bench.fetch_attempt(config, tmp_path / "published")
    report = load_json(folder / "evaluation.json")
    assert (report["split"], report["rows"], len(report["samples"])) == ("test", 10, 8)
    assert {item.name: float(item.value) for item in manifest.metrics["tuned"]} == pytest.approx(report["tuned"], 1e-4)
    assert measure_difference(load_published(bench.get_model_folder(model), folder / "model"), report["samples"]) < 1e-4
    assert str(tmp_path) not in "".join(path.read_text() for path in folder.rglob("*.json"))


BFLOAT16_RUNS = [
    # Weights that were trained in float32 are published and evaluated so; a frozen base is loaded in bfloat16.
    pytest.param(CLASSIFICATION, "encoder", method("Full"), torch.float32, 1e-4, id="classify, full"),
    pytest.param("CausalLM", "decoder", method("Full"), torch.float32, 1e-4, id="continue, full"),
    pytest.param(CLASSIFICATION, "encoder", method("LoRA"), torch.bfloat16, 0.02, id="classify, LoRA"),
    pytest.param(CLASSIFICATION, "decoder", method("LoRA", variant="DoRA"), torch.bfloat16, 0.02, id="classify, DoRA"),
    pytest.param("CausalLM", "decoder", method("LoRA"), torch.bfloat16, 0.02, id="continue, LoRA"),
    pytest.param("CausalLM", "decoder", method("LoRA", "NF4"), torch.bfloat16, 0.02, id="continue, LoRA on NF4"),
    pytest.param(CLASSIFICATION, "encoder", method("LoRA", "Int8"), torch.bfloat16, 0.02, id="classify, LoRA on int8"),
]


@pytest.mark.parametrize(("task", "model", "chosen", "dtype", "tolerance"), BFLOAT16_RUNS)
def test_training_in_bfloat16_publishes_what_its_samples_say(
    bench: RunBench,
    tmp_path: Path,
    *,
    task: str,
    model: str,
    chosen: dict[str, Any],
    dtype: torch.dtype,
    tolerance: float,
) -> None:
    config = bench.prepare(task, model, spec={"method": chosen}, resolved={"precision": "BFloat16"})

    train.run(config, tmp_path / "scratch")

    folder = bench.fetch_attempt(config, tmp_path / "published")
    published = load_published(bench.get_model_folder(model), folder / "model")
    assert measure_difference(published, load_json(folder / "evaluation.json")["samples"]) < tolerance


MEANT = {"architectures", "dtype", "id2label", "label2id", "problem_type", "transformers_version"}
"""What a classifier's training means to change of its base's configuration."""


@pytest.mark.parametrize("kind", ["Full", "HeadOnly", "LoRA"])
def test_the_published_configuration_is_the_bases_but_for_what_was_trained(
    bench: RunBench, tmp_path: Path, kind: str
) -> None:
    path = tiny_models.build_encoder(bench.folder / f"several-{kind}") / "config.json"
    base = load_json(path) | {"problem_type": "multi_label_classification", "use_cache": True, "pad_token_id": 3}
    path.write_text(json.dumps(base))
    config = bench.prepare(CLASSIFICATION, f"several-{kind}", spec={"method": method(kind)})

    train.run(config, tmp_path / "scratch")

    folder = bench.fetch_attempt(config, tmp_path / "published") / "model"
    found = load_json(folder / "config.json")
    assert {name for name in base.keys() | found.keys() if base.get(name) != found.get(name)} <= MEANT
    assert found["problem_type"] == "single_label_classification"
    assert list(found["id2label"].values()) == list(training_runs.LABELS)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert tokenizer.pad_token_id == 3

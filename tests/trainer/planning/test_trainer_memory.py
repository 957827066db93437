"""Predicted memory in real numbers, the micro-batch that fits, and the automatic choices."""

import dataclasses
from typing import Any

import pytest

from finetune_api.kinds.finetunejob.spec import FineTuneJobSpec, Task
from finetune_trainer import tasks
from finetune_trainer.model.facts import ModelFacts
from finetune_trainer.planning import memory, plan
from finetune_trainer.tasks import TaskPreparation

GIB = 2**30
LANGUAGE = tasks.find_preparation(Task.CAUSAL_LM)
CLASSIFIER = tasks.find_preparation(Task.SEQUENCE_CLASSIFICATION)


def make_llama_8b() -> ModelFacts:
    """Llama 3.1 8B by its published configuration."""
    linear: dict[str, tuple[int, int]] = {}
    for layer in range(32):
        shapes = {"q_proj": (4096, 4096), "k_proj": (1024, 4096), "v_proj": (1024, 4096), "o_proj": (4096, 4096)}
        shapes |= {"gate_proj": (14336, 4096), "up_proj": (14336, 4096), "down_proj": (4096, 14336)}
        linear |= {f"model.layers.{layer}.{name}": shape for name, shape in shapes.items()}
    weights = sum(rows * columns for rows, columns in linear.values())
    facts = ModelFacts("llama", 8_030_261_248, "BF16", linear, 32, 4096, 14336, 128_256, False)
    return dataclasses.replace(facts, num_quantizable=weights)


def make_spec(**changes: Any) -> FineTuneJobSpec:
    return FineTuneJobSpec.model_validate(
        {
            "task": "CausalLM",
            "model": {"uri": "s3://models/m/"},
            "data": [{"name": "d", "train": {"uri": "s3://data/t.jsonl"}}],
            "output": {"uri": "s3://runs/x"},
            "resources": {"gpus": 1},
            **changes,
        }
    )


def lora(rank: int, targets: list[str], quantization: str = "None") -> dict[str, Any]:
    return {"kind": "LoRA", "quantization": quantization, "lora": {"rank": rank, "targetModules": targets}}


def test_lora_counts_as_published() -> None:
    # peft prints 41,943,040 for Llama 3 8B with rank 16 on all linear layers, 3,407,872 with rank 8 on q and v.
    facts = make_llama_8b()
    assert memory.count_trainable(facts, make_spec(method=lora(16, ["all-linear"]))) == 41_943_040
    assert memory.count_trainable(facts, make_spec(method=lora(8, ["q_proj", "v_proj"]))) == 3_407_872
    assert memory.count_trainable(facts, make_spec(method={"kind": "Full"})) == facts.num_parameters


WEIGHTS = [
    pytest.param("None", 14.9, 15.2, id="bfloat16"),
    # 6.98 billion weights of linear layers in 1 or about 0.53 bytes, 1.05 billion of embeddings and head in 4.
    pytest.param("Int8", 10.4, 10.7, id="int8: a byte for linear layers"),
    pytest.param("NF4", 7.3, 7.6, id="nf4: half of that"),
]


@pytest.mark.parametrize(("quantization", "low", "high"), WEIGHTS)
def test_frozen_weights_of_an_8b_model(quantization: str, low: float, high: float) -> None:
    spec = make_spec(method=lora(16, ["all-linear"], quantization))
    assert low < memory.predict_peak(make_llama_8b(), spec, LANGUAGE, 128).weights / GIB < high


def test_only_layers_that_are_quantized_are_held_in_few_bits() -> None:
    # Of a mixture whose experts are one tensor each, say: they are most of it, and no layers.
    facts, spec = make_llama_8b(), make_spec(method=lora(16, ["q_proj"], "NF4"))
    half = dataclasses.replace(facts, num_quantizable=facts.num_quantizable // 2)
    more = (
        memory.predict_peak(half, spec, LANGUAGE, 128).weights - memory.predict_peak(facts, spec, LANGUAGE, 128).weights
    )
    assert more == pytest.approx((4 - 0.52) * facts.num_quantizable / 2)


def test_full_training_keeps_weights_gradients_and_moments_in_float32() -> None:
    facts = make_llama_8b()
    found = memory.predict_peak(facts, make_spec(method={"kind": "Full"}), LANGUAGE, 1)
    assert (found.weights, found.training) == (4 * facts.num_parameters, 12 * facts.num_parameters)


def test_activations_grow_with_tokens_at_the_known_rate() -> None:
    # trainer.md: 5 to 6 MB per token without recomputation for this shape.
    one = memory.predict_peak(make_llama_8b(), make_spec(), LANGUAGE, 4096)
    four = memory.predict_peak(make_llama_8b(), make_spec(), LANGUAGE, 4 * 4096)
    assert 5 < one.activations / 4096 / 1e6 < 6.5
    assert four.activations == 4 * one.activations
    assert four.peak > one.peak


MEASURED = [
    # Resident memory of the train stage as it was measured for the examples, 2026-11, two cores.
    pytest.param({"kind": "Full"}, 22_713_728, 10_639_360, 64, 1.4, id="MiniLM, all weights"),
    pytest.param(lora(16, ["all-linear"], "Int8"), 22_713_728, 10_639_360, 64, 1.7, id="MiniLM, LoRA on int8"),
    pytest.param(lora(16, ["all-linear"], "NF4"), 22_713_728, 10_639_360, 64, 1.7, id="MiniLM, LoRA on nf4"),
]


@pytest.mark.parametrize(("method", "num_parameters", "num_linear", "longest", "want_gib"), MEASURED)
def test_the_examples_are_predicted_within_15_percent(
    method: dict[str, Any], num_parameters: int, num_linear: int, *, longest: int, want_gib: float
) -> None:
    sides = {"encoder.dense": (num_linear // 384, 384)}
    facts = ModelFacts("bert", num_parameters, "F32", sides, 6, 384, 1536, 30_522, False, num_quantizable=num_linear)
    spec = make_spec(task="SequenceClassification", method=method, resources={"gpus": 0})
    found = memory.predict_peak(facts, spec, CLASSIFIER, 16 * longest).peak / GIB
    assert want_gib * 0.85 < found < want_gib * 1.15


def test_a_language_model_is_predicted_within_15_percent() -> None:
    linear = {f"l{n}.{name}": shape for n in range(30) for name, shape in {
        "q_proj": (576, 576), "k_proj": (192, 576), "v_proj": (192, 576), "o_proj": (576, 576),
        "gate_proj": (1536, 576), "up_proj": (1536, 576), "down_proj": (576, 1536),
    }.items()}  # fmt: skip
    facts = ModelFacts("llama", 134_515_008, "Q4_1", linear, 30, 576, 1536, 49_152, False)
    method = lora(8, ["q_proj", "k_proj", "v_proj", "o_proj"])
    spec = make_spec(task="InstructionTuning", method=method, resources={"gpus": 0}, training={"batchSize": 8})
    # SmolLM2 on dictionary entries, batches of 8, the longest row of 103 tokens; measured 2.4 GiB.
    tokens, prediction = memory.plan_micro_batch(facts, spec, LANGUAGE, 103, 16 * GIB)
    assert tokens == 8 * 103
    assert 2.4 * 0.85 < prediction.peak / GIB < 2.4 * 1.15


LOGITS = [
    pytest.param("llama", LANGUAGE, {"gpus": 1}, 3 * 512 * 2**20, id="a few chunks where they are never there whole"),
    pytest.param("llama", LANGUAGE, {"gpus": 0}, 3 * 64 * 2**20, id="smaller chunks on a CPU"),
    pytest.param("gemma2", LANGUAGE, {"gpus": 1}, 8192 * 128_256 * 10, id="all of them where they are capped"),
    pytest.param("llama", CLASSIFIER, {"gpus": 1}, 0, id="next to none for a classifier"),
]


@pytest.mark.parametrize(("architecture", "task", "resources", "want"), LOGITS)
def test_logits_of_a_micro_batch(
    architecture: str, task: TaskPreparation, resources: dict[str, Any], want: int
) -> None:
    facts = dataclasses.replace(make_llama_8b(), model_type=architecture)
    found = memory.predict_peak(facts, make_spec(resources=resources), task, 8192)
    assert found.outputs == want


MICRO_BATCHES = [
    pytest.param({"gpus": 0}, 300, 90, 2048, id="as many tokens as help where there is room"),
    pytest.param({"gpus": 0}, 10, 90, 160, id="no more than a step has"),
    pytest.param({"gpus": 0}, 300, 46, 512, id="halved until it fits"),
    pytest.param({"gpus": 0}, 300, 1, 300, id="the longest row where nothing fits"),
    pytest.param({"gpus": 0}, 3000, 200, 3000, id="a row longer than what helps"),
    pytest.param({"gpus": 2}, 4096, None, 16_384, id="GPUs of unknown memory"),
    pytest.param({"gpus": 3}, 100, None, 600, id="no more than a GPU takes of a step"),
    pytest.param({"gpus": 1}, 4096, 80, 8192, id="a GPU of 80 GB"),
]


@pytest.mark.parametrize(("resources", "longest", "gib", "want"), MICRO_BATCHES)
def test_a_micro_batch_has_as_many_tokens_as_help_and_fit(
    resources: dict[str, Any], longest: int, gib: int | None, want: int
) -> None:
    spec = make_spec(resources=resources)
    available = None if gib is None else gib * GIB
    found, prediction = memory.plan_micro_batch(make_llama_8b(), spec, LANGUAGE, longest, available)
    assert found == want
    assert prediction == memory.predict_peak(make_llama_8b(), spec, LANGUAGE, want)


@pytest.mark.parametrize(
    ("num_rows", "want"),
    [(1, 25), (10, 10), (33, 4), (34, 3), (8_333, 3), (8_334, 2), (12_501, 1), (1_000_000, 1)],
)
def test_automatic_epochs(num_rows: int, want: int) -> None:
    assert plan.choose_epochs(num_rows) == want


def test_what_the_spec_leaves_open_is_decided_and_written_down() -> None:
    found = plan.build_choices(make_spec(), 1000, 2048, is_packed=True)
    assert found == {
        "packing": "true",
        "microBatchTokens": "2048",
        "learningRate": "2e-4",
        "epochs": "3",
        "totalSteps": "189",
        "precision": "Auto",
        "bestMetric": "loss",
        "seed": "13",
    }


def test_what_the_spec_says_is_kept() -> None:
    training = {"maxSteps": 50, "learningRate": "1e-3", "seed": 5}
    spec = make_spec(training=training, evaluation={"bestMetric": "perplexity"}, resources={"gpus": 0})
    found = plan.build_choices(spec, 100, 512, is_packed=False)
    assert found == {
        "packing": "false",
        "microBatchTokens": "512",
        "learningRate": "1e-3",
        "epochs": "7.143",
        "totalSteps": "50",
        "precision": "Float32",
        "bestMetric": "perplexity",
        "seed": "5",
    }


def test_a_part_of_an_epoch_is_at_least_one_step() -> None:
    spec = make_spec(training={"epochs": "0.01"})
    assert plan.build_choices(spec, 20, 512, is_packed=True)["totalSteps"] == "1"

"""The base model: what headers and configuration tell, and what is refused."""

# ruff: noqa: E501 - a case per line keeps the tables readable

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy
import pytest
import transformers

from finetune_api.errors import ConfigError, FineTuneError, ModelError
from finetune_api.kinds.finetunejob.spec import FineTuneJobSpec, ModelSource, Task
from finetune_trainer import tasks
from finetune_trainer.model import facts as base_model
from finetune_trainer.model import fit
from finetune_trainer.model.facts import ModelFacts
from finetune_trainer.model.tokenizer import load_tokenizer

SOURCE = ModelSource(uri="s3://models/tiny/")
ENCODER_LAYERS = {"query", "key", "value", "dense"}


@pytest.fixture(scope="module")
def encoder_folder(models: dict[str, Path]) -> Path:
    return models["encoder"]


@pytest.fixture(scope="module")
def decoder_folder(models: dict[str, Path]) -> Path:
    return models["decoder"]


def write_gguf(path: Path, shapes: dict[str, tuple[int, ...]], edit: Callable[[Any], object] = lambda _: None) -> None:
    """Write the header of a Llama with tensors of ones."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_block_count(1)
    edit(writer)
    for name, shape in shapes.items():
        writer.add_tensor(name, numpy.ones(shape, numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def gguf_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of one layer in a GGUF file."""
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"

    def describe(writer: Any) -> None:
        writer.add_context_length(64)
        writer.add_embedding_length(32)
        writer.add_feed_forward_length(48)
        writer.add_head_count(2)
        writer.add_layer_norm_rms_eps(1e-5)
        writer.add_vocab_size(40)

    shapes = {"token_embd": (40, 32), "blk.0.attn_q": (32, 32), "blk.0.ffn_up": (48, 32), "blk.0.attn_norm": (32,)}
    write_gguf(path, {f"{name}.weight": shape for name, shape in shapes.items()}, describe)
    return path


def make_spec(**changes: Any) -> FineTuneJobSpec:
    return FineTuneJobSpec.model_validate(
        {
            "task": "SequenceClassification",
            "model": {"uri": SOURCE.uri},
            "data": [{"name": "d", "train": {"uri": "s3://data/t.jsonl"}}],
            "output": {"uri": "s3://runs/x"},
            "training": {"maxLength": 64},
            **changes,
        }
    )


def change(folder: Path, tmp_path: Path, edit: Callable[[Path], object]) -> Path:
    """Return a copy of a model folder after an edit."""
    copy = tmp_path / "changed"
    shutil.copytree(folder, copy)
    edit(copy)
    return copy


# What headers and configuration tell.


def test_the_facts_of_an_encoder(encoder_folder: Path) -> None:
    facts = base_model.load_facts(encoder_folder, None, SOURCE)
    assert (facts.model_type, facts.dtype, facts.num_layers, facts.hidden_size) == ("bert", "F32", 2, 64)
    assert (facts.intermediate_size, facts.max_positions, facts.is_decoder) == (128, 128, False)
    assert {path.rpartition(".")[2] for path in facts.linear_shapes} == ENCODER_LAYERS
    assert facts.linear_shapes["encoder.layer.0.intermediate.dense"] == (128, 64)
    embeddings = (facts.vocabulary_size + 128 + 2) * 64 + 2 * 64
    layer = 4 * (64 * 64 + 64) + (64 * 128 + 128) + (128 * 64 + 64) + 4 * 64
    assert facts.num_parameters == embeddings + 2 * layer + (64 * 64 + 64)


def test_the_facts_of_a_gguf_file(gguf_path: Path) -> None:
    facts = base_model.load_facts(gguf_path.parent, gguf_path.name, SOURCE)
    assert facts == ModelFacts(
        model_type="llama",
        num_parameters=40 * 32 + 32 * 32 + 48 * 32 + 32,
        dtype="F32",
        linear_shapes={"model.layers.0.self_attn.q_proj": (32, 32), "model.layers.0.mlp.up_proj": (48, 32)},
        num_layers=1,
        hidden_size=32,
        intermediate_size=48,
        vocabulary_size=40,
        max_positions=64,
        is_decoder=False,
    )


@pytest.mark.parametrize("kept", [0, 10, 200, -1], ids=["nothing", "10 bytes", "within the header", "one byte short"])
def test_a_gguf_file_cut_short_is_refused(gguf_path: Path, tmp_path: Path, kept: int) -> None:
    (tmp_path / "cut.gguf").write_bytes(gguf_path.read_bytes()[:kept])
    with pytest.raises(
        ModelError, match=r"spec\.model\.uri \(.*\) must be a whole GGUF file; it is cut short or damaged"
    ):
        base_model.load_facts(tmp_path, "cut.gguf", SOURCE)


@pytest.mark.parametrize("scaling", ["linear", "factors"])
def test_a_gguf_file_whose_positions_would_be_read_wrong_is_refused(tmp_path: Path, scaling: str) -> None:
    factors: dict[str, tuple[int, ...]] = {"rope_freqs.weight": (8,)} if scaling == "factors" else {}

    def scale(writer: Any) -> None:
        if scaling == "linear":
            writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)

    write_gguf(tmp_path / "scaled.gguf", {"blk.0.attn_q.weight": (32, 32), **factors}, scale)
    with pytest.raises(ModelError, match=r"must have plain rotary positions to be read from GGUF; it scales them"):
        base_model.load_facts(tmp_path, "scaled.gguf", SOURCE)


def test_experts_in_a_gguf_file_are_seen(tmp_path: Path) -> None:
    write_gguf(tmp_path / "experts.gguf", {"blk.0.ffn_gate_exps.weight": (2, 32, 32)})
    assert base_model.load_facts(tmp_path, "experts.gguf", SOURCE).has_experts


def edit_config(**changes: Any) -> Callable[[Path], object]:
    def edit(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return edit


DAMAGES = [
    pytest.param(lambda folder: (folder / "config.json").write_text("{"), "config.json must be JSON", id="broken configuration"),
    pytest.param(edit_config(model_type="my-bert", auto_map={"AutoModel": "m.M"}), "config.json model_type (my-bert) must be an architecture of transformers; it needs code of its own, which is never run", id="code of its own"),
    pytest.param(edit_config(model_type="my-bert"), "model_type (my-bert) must be an architecture of transformers; it is not known", id="unknown architecture"),
    pytest.param(lambda folder: (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-1]), "model.safetensors must be a whole safetensors file", id="weights cut short"),
    pytest.param(lambda folder: (folder / "model.safetensors").write_bytes(b"\x80\x02pickle?"), "model.safetensors must be a whole safetensors file", id="no safetensors at all"),
    pytest.param(lambda folder: (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-2.safetensors"}}'), "model.safetensors.index.json lists files that must be there; model-2.safetensors are not", id="a shard missing"),
    pytest.param(lambda folder: (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": '), "model.safetensors.index.json must be a JSON object with a weight_map", id="an index cut short"),
    pytest.param(lambda folder: (folder / "model.safetensors.index.json").write_text('["a"]'), "model.safetensors.index.json must be a JSON object with a weight_map", id="an index that is a list"),
    pytest.param(edit_config(quantization_config={"quant_method": "awq", "bits": 4}), "must hold weights that are not quantized; its configuration says quant_method awq", id="quantized already"),
    pytest.param(edit_config(hidden_size="many"), "must have a configuration that can be read", id="a size that is no number"),
    pytest.param(edit_config(hidden_size=[64]), "must have a configuration that can be read", id="a size that is a list"),
]  # fmt: skip


@pytest.mark.parametrize(("edit", "want"), DAMAGES)
def test_a_damaged_folder_is_refused(
    encoder_folder: Path, tmp_path: Path, edit: Callable[[Path], object], want: str
) -> None:
    with pytest.raises(ModelError) as caught:
        base_model.load_facts(change(encoder_folder, tmp_path, edit), None, SOURCE)
    assert want in caught.value.message


def test_a_tokenizer_that_cannot_be_loaded_is_refused(encoder_folder: Path, tmp_path: Path) -> None:
    folder = change(encoder_folder, tmp_path, lambda copy: (copy / "tokenizer.json").write_text("{}"))
    with pytest.raises(ModelError, match="must hold a tokenizer that can be loaded"):
        load_tokenizer(folder, None, SOURCE)


def test_a_tokenizer_beside_a_configuration_of_wrong_types_is_refused(encoder_folder: Path, tmp_path: Path) -> None:
    folder = change(encoder_folder, tmp_path, edit_config(hidden_size="many"))
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(ModelError, match="must hold a tokenizer that can be loaded"):
        load_tokenizer(folder, None, SOURCE)


# A head of its own.


@pytest.fixture(scope="module")
def classifier_facts(tmp_path_factory: pytest.TempPathFactory) -> ModelFacts:
    """A model that tells three moods apart."""
    names = {0: "sad", 1: "so-so", 2: "glad"}
    config = transformers.BertConfig(
        vocab_size=40, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, id2label=names
    )
    folder = tmp_path_factory.mktemp("classifier")
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    return base_model.load_facts(folder, None, SOURCE)


@pytest.mark.parametrize(
    ("labels", "want"),
    [
        pytest.param(["glad", "sad", "so-so"], ["sad", "so-so", "glad"], id="the head's labels in its order"),
        pytest.param(["a", "b", "c"], ["a", "b", "c"], id="as many others"),
    ],
)
def test_labels_follow_a_head_that_knows_them(classifier_facts: ModelFacts, labels: list[str], want: list[str]) -> None:
    assert fit.order_labels(classifier_facts, labels, SOURCE) == want


def test_a_head_for_another_number_of_labels_is_refused(classifier_facts: ModelFacts) -> None:
    with pytest.raises(ModelError, match=r"a head for 3 labels \(sad, so-so, glad\).* must be .*: 2 \(bad, good\)"):
        fit.order_labels(classifier_facts, ["bad", "good"], SOURCE)


def test_without_a_head_the_labels_keep_their_order(encoder_folder: Path) -> None:
    assert fit.order_labels(base_model.load_facts(encoder_folder, None, SOURCE), ["b", "a"], SOURCE) == [
        "b",
        "a",
    ]


# What it can be trained for.


def test_tasks_that_fit() -> None:
    def fitting(model_type: str, is_decoder: bool = False) -> list[Task]:
        facts = ModelFacts(model_type, 1, "F32", {}, 1, 1, 1, 1, None, is_decoder)
        return tasks.find_fitting_tasks(facts)

    language = [Task.CAUSAL_LM, Task.INSTRUCTION_TUNING]
    assert fitting("llama") == [Task.SEQUENCE_CLASSIFICATION, *language]
    assert fitting("bert") == [Task.SEQUENCE_CLASSIFICATION]
    assert fitting("bert", is_decoder=True) == [Task.SEQUENCE_CLASSIFICATION, *language]
    assert fitting("vit") == []


def test_a_size_that_differs_by_layer_counts_as_the_largest(decoder_folder: Path, tmp_path: Path) -> None:
    config = transformers.AutoConfig.from_pretrained(decoder_folder)
    assert base_model.load_facts(decoder_folder, None, SOURCE).intermediate_size == config.intermediate_size == 128
    assert [base_model.find_largest(size) for size in ([64, 256, 128], 128, None, [])] == [256, 128, 0, 0]


def test_experts_are_not_linear_layers_and_are_not_quantized(encoder_folder: Path, tmp_path: Path) -> None:
    config = transformers.Qwen3MoeConfig(
        vocab_size=100, hidden_size=32, intermediate_size=64, moe_intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, head_dim=16, num_experts=2, num_experts_per_tok=1,
    )  # fmt: skip
    transformers.Qwen3MoeForCausalLM(config).save_pretrained(tmp_path)
    facts = base_model.load_facts(tmp_path, None, SOURCE)
    tokenizer = load_tokenizer(encoder_folder, None, SOURCE)

    assert {path.rpartition(".")[2] for path in facts.linear_shapes} == {"q_proj", "k_proj", "v_proj", "o_proj", "gate"}
    with pytest.raises(ConfigError, match=r"spec\.method\.quantization \(NF4\) must be None for .* experts"):
        fit.check_fit(
            dataclasses.replace(facts, vocabulary_size=len(tokenizer)),
            tokenizer,
            make_spec(method={"quantization": "NF4"}),
            tasks.find_fitting_tasks(facts),
        )


MISFITS = [
    pytest.param({"task": "CausalLM"}, ModelError, "must be a model for CausalLM; architecture bert fits SequenceClassification", id="an encoder asked for CausalLM"),
    pytest.param({"training": {"maxLength": 129}}, ConfigError, "spec.training.maxLength (129) must be at most 128, the positions of s3://models/tiny/", id="longer than the model's positions"),
    pytest.param({"method": {"lora": {"targetModules": ["query", "qurey"]}}}, ModelError, "spec.method.lora.targetModules (qurey) must name linear layers of the model, which has dense, key, query, value; did you mean query?", id="LoRA targets that match nothing"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "want_class", "want"), MISFITS)
def test_what_does_not_fit_the_model_is_refused(
    encoder_folder: Path, changes: dict[str, Any], want_class: type[FineTuneError], want: str
) -> None:
    facts = base_model.load_facts(encoder_folder, None, SOURCE)
    tokenizer = load_tokenizer(encoder_folder, None, SOURCE)
    fit.check_fit(facts, tokenizer, make_spec(), tasks.find_fitting_tasks(facts))
    with pytest.raises(want_class) as caught:
        fit.check_fit(facts, tokenizer, make_spec(**changes), tasks.find_fitting_tasks(facts))
    assert want in caught.value.message
    assert caught.value.remedy


def test_a_tokenizer_of_another_model_is_refused(encoder_folder: Path, decoder_folder: Path) -> None:
    facts = base_model.load_facts(encoder_folder, None, SOURCE)
    tokenizer = load_tokenizer(decoder_folder, None, SOURCE)
    assert len(tokenizer) > facts.vocabulary_size
    with pytest.raises(ModelError, match="must not know more tokens than the model"):
        fit.check_fit(facts, tokenizer, make_spec(), tasks.find_fitting_tasks(facts))


TARGETS = [
    (["q_proj"], ["a.q_proj"]),
    (["a.q_proj", "b.v_proj"], ["a.q_proj", "b.v_proj"]),
    (["proj"], []),
    (["all-linear"], ["a.q_proj", "b.v_proj"]),
]


@pytest.mark.parametrize(("targets", "want"), TARGETS, ids=lambda value: " ".join(value) or "none")
def test_a_target_is_the_end_of_a_path_at_a_dot(targets: list[str], want: list[str]) -> None:
    facts = ModelFacts("x", 1, "F32", {"a.q_proj": (1, 1), "b.v_proj": (1, 1)}, 1, 1, 1, 1, None, False)
    assert list(fit.match_linear(facts, targets)) == want


def test_roberta_has_fewer_positions_than_it_says(encoder_folder: Path, tmp_path: Path) -> None:
    folder = change(encoder_folder, tmp_path, edit_config(model_type="roberta", pad_token_id=1))
    assert base_model.load_facts(folder, None, SOURCE).max_positions == 126

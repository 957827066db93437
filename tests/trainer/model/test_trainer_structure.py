"""What the class of a model makes of its files: heads, new modules, layers and positions, under whatever name."""

# ruff: noqa: E501 - a case per line keeps the tables readable

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import tiny_architectures
import torch
import transformers

from finetune_api.errors import ConfigError, FineTuneError, ModelError
from finetune_api.kinds.finetunejob.spec import FineTuneJobSpec, ModelSource, Task
from finetune_trainer import tasks
from finetune_trainer.model import fit
from finetune_trainer.model.structure import ModelStructure, inspect_structure

SOURCE = ModelSource(uri="s3://models/tiny/")
SIZES: dict[str, Any] = {
    "vocab_size": 120,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
BART: dict[str, Any] = {
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
}


def build(kind: str, **changes: Any) -> Any:
    """Build a configuration of small sizes."""
    sizes = {} if kind == "xlnet" else SIZES
    return transformers.AutoConfig.for_model(kind, **{**sizes, **changes})


def save(config: Any, folder: Path, *, is_whole: bool = False, is_language: bool = False) -> Path:
    """Save a model of random weights: its body alone, or with its head."""
    kind = transformers.AutoModelForCausalLM if is_language else transformers.AutoModelForSequenceClassification
    model = kind.from_config(config)
    (model if is_whole or is_language else model.base_model).save_pretrained(folder)
    return folder


def inspect(folder: Path, task: Task = Task.SEQUENCE_CLASSIFICATION, **changes: Any) -> ModelStructure:
    return inspect_structure(folder, None, make_spec(task=task, **changes), tasks.find_preparation(task))


def make_spec(**changes: Any) -> FineTuneJobSpec:
    return FineTuneJobSpec.model_validate(
        {
            "task": "SequenceClassification",
            "model": {"uri": SOURCE.uri},
            "data": [{"name": "d", "train": {"uri": "s3://data/t.jsonl"}}],
            "output": {"uri": "s3://runs/x"},
            "training": {"maxLength": 32},
            **changes,
        }
    )


NEW_HEADS = [
    pytest.param("bert", {}, ["classifier"], id="one layer"),
    pytest.param("distilbert", {}, ["classifier", "pre_classifier"], id="two layers side by side"),
    pytest.param("modernbert", {"pad_token_id": 0}, ["classifier", "head"], id="a head called head"),
    pytest.param("bart", BART, ["classification_head"], id="a classification head"),
    pytest.param("xlnet", {"d_model": 32, "n_layer": 1, "n_head": 4, "d_inner": 64}, ["logits_proj", "sequence_summary"], id="a summary and a projection"),
    pytest.param("llama", {"num_key_value_heads": 2}, ["score"], id="a decoder's"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "changes", "want"), NEW_HEADS)
def test_a_new_head_is_found_whatever_its_name_and_never_quantized(
    tmp_path: Path, kind: str, changes: dict[str, Any], want: list[str]
) -> None:
    found = inspect(save(build(kind, **changes), tmp_path))

    assert sorted(found.new_modules) == sorted(found.heads) == want
    assert set(want) <= set(found.unquantized)
    assert not [name for name in [*found.linear, *found.quantized] if name.split(".")[0] in want]
    assert (found.has_trained_head, found.head_labels) == (False, [])


@pytest.mark.parametrize(("kind", "changes"), [("bert", {}), ("bart", BART), ("llama", {"num_key_value_heads": 2})])
def test_a_head_that_the_checkpoint_has_gives_its_labels(tmp_path: Path, kind: str, changes: dict[str, Any]) -> None:
    names = {0: "entailment", 1: "neutral", 2: "contradiction"}

    found = inspect(save(build(kind, **changes, id2label=names), tmp_path, is_whole=True))

    assert (found.new_modules, found.has_trained_head, found.head_labels) == ([], True, list(names.values()))


POSITIONS = [
    pytest.param("bert", {}, 64, id="learned from the first"),
    pytest.param("roberta", {"pad_token_id": 1}, 62, id="learned, behind the padding"),
    pytest.param("mpnet", {}, 62, id="behind a padding that no configuration names"),
    pytest.param("xlm-roberta-xl", {}, 62, id="the same of another class"),
    pytest.param("bart", BART, 64, id="a table that is longer by what it begins behind"),
    pytest.param("llama", {"num_key_value_heads": 2}, 64, id="rotary, as the configuration says"),
    pytest.param("deberta-v2", {"relative_attention": True, "position_biased_input": False}, None, id="relative alone"),
    pytest.param("deberta-v2", {"relative_attention": True}, 64, id="relative and learned"),
    pytest.param("xlnet", {"d_model": 32, "n_layer": 1, "n_head": 4, "d_inner": 64}, None, id="none: -1"),
]


@pytest.mark.parametrize(("kind", "changes", "want"), POSITIONS)
def test_positions_are_those_of_the_class(tmp_path: Path, kind: str, changes: dict[str, Any], want: int | None) -> None:
    assert inspect(save(build(kind, **changes), tmp_path)).max_positions == want


def test_kinds_of_tokens_are_counted_in_the_table_and_in_what_the_class_takes(tmp_path: Path) -> None:
    def count(kind: str, **changes: Any) -> int | None:
        return inspect(save(build(kind, **changes), tmp_path / kind)).num_token_types

    assert count("bert") == 2
    assert count("roberta", type_vocab_size=1, pad_token_id=1) == 1
    assert count("distilbert") == 0
    assert count("xlnet", d_model=32, n_layer=1, n_head=4, d_inner=64) is None


def test_what_a_head_reads_is_known(tmp_path: Path) -> None:
    def read(kind: str, **changes: Any) -> tuple[bool, bool]:
        found = inspect(save(build(kind, **changes), tmp_path / kind))
        return found.reads_last, found.reads_stop_token

    assert read("bert") == (False, False)
    assert read("xlnet", d_model=32, n_layer=1, n_head=4, d_inner=64) == (True, False)
    assert read("bart", **BART) == (False, True)


GEMMA3: dict[str, Any] = {
    "text_config": {
        **{name: SIZES[name] for name in SIZES},
        "num_key_value_heads": 2,
        "head_dim": 16,
        "model_type": "gemma3_text",
    },
    "vision_config": {
        "model_type": "siglip_vision_model",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "image_size": 28,
        "patch_size": 14,
    },
}


def test_towers_that_no_text_goes_through_get_no_adapter_and_limit_no_positions(tmp_path: Path) -> None:
    config = transformers.Gemma3Config(**GEMMA3)
    transformers.Gemma3ForSequenceClassification(config).save_pretrained(tmp_path)

    found = inspect(tmp_path)

    assert found.max_positions == 64
    assert [name for name in found.linear if "vision" in name] == []
    assert [name for name in found.left_out["text doesn't go through them"] if "vision_tower" not in name] == []


def test_a_part_that_the_task_has_no_use_for_is_no_sign_of_another_model(tmp_path: Path) -> None:
    config = transformers.FunnelConfig(
        vocab_size=40, d_model=32, n_head=4, d_head=8, d_inner=64, block_sizes=[1, 1], num_decoder_layers=1
    )
    transformers.FunnelForMaskedLM(config).save_pretrained(tmp_path)
    assert inspect(tmp_path).new_modules == ["classifier"]


def test_characters_that_are_hashed_have_no_table_of_embeddings(tmp_path: Path) -> None:
    config = build("canine", num_hash_buckets=64, upsampling_kernel_size=2, downsampling_rate=2)
    assert inspect(save(config, tmp_path)).num_embeddings == 0


UNREAD = [
    pytest.param("big_bird", {"pooler"}, id="a pooler beside the head"),
    pytest.param("luke", {"e2e_query", "e2w_query", "entity_embedding_dense", "w2e_query"}, id="what entities need"),
    pytest.param("bert", set(), id="none"),
    pytest.param("mixtral", set(), id="none of a mixture"),
    pytest.param("longformer", set(), id="can't be tried without numbers"),
]


@pytest.mark.parametrize(("kind", "want"), UNREAD)
def test_layers_that_the_answer_does_not_depend_on_get_no_adapter(tmp_path: Path, kind: str, want: set[str]) -> None:
    found = inspect(tiny_architectures.build_model(kind, tmp_path))

    unread = found.left_out.get("the answer doesn't depend on them", [])
    assert {name.rpartition(".")[2] for name in unread} == want
    assert not set(unread) & found.linear.keys()


GROWING = [
    pytest.param("bert", True, id="one table"),
    pytest.param("bart", True, id="one table for encoder and decoder"),
    pytest.param("gemma3n_text", True, id="a second table that grows along"),
    pytest.param("t5gemma", False, id="a second table that doesn't"),
    pytest.param("canine", False, id="none"),
]


@pytest.mark.parametrize(("kind", "want"), GROWING)
def test_a_model_can_be_given_tokens_where_all_its_tables_grow(tmp_path: Path, kind: str, want: bool) -> None:
    folder = tiny_architectures.build_model(kind, tmp_path)
    task = Task.CAUSAL_LM if kind.startswith("gemma") else Task.SEQUENCE_CLASSIFICATION
    assert inspect(folder, task).can_grow is want


def test_a_look_draws_none_of_the_runs_random_numbers(tmp_path: Path) -> None:
    folder = save(build("bert"), tmp_path)
    state = torch.random.get_rng_state()
    inspect(folder)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_what_only_adapters_need_is_asked_only_for_them(tmp_path: Path) -> None:
    folder = save(build("mamba", state_size=8), tmp_path, is_language=True)
    of_adapters, of_all = (inspect(folder, Task.CAUSAL_LM, method={"kind": kind}) for kind in ("LoRA", "Full"))
    refused = of_adapters.left_out.pop("PEFT can't adapt them in this architecture")
    assert {name: of_all.linear.pop(name) for name in refused} == {"backbone.layers.0.mixer.out_proj": (32, 64)}
    assert of_adapters == of_all


MIXTURE: dict[str, Any] = {"num_key_value_heads": 2, "num_local_experts": 2}


def test_layers_without_an_adapter_are_named_with_the_reason(tmp_path: Path) -> None:
    mixture = inspect(save(build("mixtral", **MIXTURE), tmp_path / "mixture", is_language=True), Task.CAUSAL_LM)
    mamba = inspect(save(build("mamba", state_size=8), tmp_path / "mamba", is_language=True), Task.CAUSAL_LM)

    assert mixture.left_out == {"the weights of all experts are one tensor, no layer": ["model.layers.0.mlp.experts"]}
    assert {name.rpartition(".")[2] for name in mixture.linear} == {"q_proj", "k_proj", "v_proj", "o_proj"}
    assert mamba.left_out == {
        "PEFT can't adapt them in this architecture": ["backbone.layers.0.mixer.out_proj"],
        "the model reads their weights without calling them": ["backbone.layers.0.mixer.dt_proj"],
    }
    assert {name.rpartition(".")[2] for name in mamba.linear} == {"in_proj", "x_proj"}
    assert "backbone.layers.0.mixer.dt_proj" in mamba.unquantized
    spec = make_spec(method={"lora": {"targetModules": ["all-linear"]}})
    assert fit.describe_left_out(mamba, spec) == [
        "spec.method.lora.targetModules (all-linear): 1 modules get no adapter, such as"
        " backbone.layers.0.mixer.out_proj: PEFT can't adapt them in this architecture",
        "spec.method.lora.targetModules (all-linear): 1 modules get no adapter, such as"
        " backbone.layers.0.mixer.dt_proj: the model reads their weights without calling them",
    ]


def test_a_checkpoint_that_lacks_more_than_a_head_is_refused(tmp_path: Path) -> None:
    folder = save(build("bert"), tmp_path)
    config = build("bert", num_hidden_layers=2)
    config.save_pretrained(folder)
    with pytest.raises(ModelError, match=r"must hold all weights of BertForSequenceClassification; missing: bert\.enc"):
        inspect(folder)


def test_a_checkpoint_that_holds_more_than_its_configuration_says_is_refused(tmp_path: Path) -> None:
    folder = save(build("bert", num_hidden_layers=2), tmp_path)
    build("bert").save_pretrained(folder)
    with pytest.raises(ModelError, match=r"must hold the weights its config\.json describes; it holds more: encoder"):
        inspect(folder)


# What it can be trained for.

PLAIN = ModelStructure(
    "BertForSequenceClassification",
    "bert",
    heads=["classifier"],
    new_modules=["classifier"],
    head_labels=[],
    linear={"a.query": (1, 1), "b.value": (1, 1)},
    quantized={"a.query": (1, 1), "b.value": (1, 1)},
    max_positions=128,
)
MISFITS = [
    pytest.param({}, {"training": {"maxLength": 129}}, "spec.training.maxLength (129) must be at most 128, the positions of s3://models/tiny/", id="longer than the model's positions"),
    pytest.param({}, {"method": {"lora": {"targetModules": ["query", "qurey"]}}}, "spec.method.lora.targetModules (qurey) must name linear layers of the model, which has query, value; did you mean query?", id="LoRA targets that match nothing"),
    pytest.param({"left_out": {"PEFT can't": ["c.out_proj"]}}, {"method": {"lora": {"targetModules": ["out_proj"]}}}, "targetModules (out_proj) must name linear layers of the model (out_proj: PEFT can't), which has query, value", id="a LoRA target that PEFT refuses"),
    pytest.param({"quantized": {}, "linear_classes": ["FalconLinear"]}, {"method": {"quantization": "NF4"}}, "spec.method.quantization (NF4) must be None for s3://models/tiny/: bitsandbytes replaces layers of torch's own class Linear, of which BertForSequenceClassification has none; its layers are FalconLinear", id="nothing to quantize"),
    pytest.param({"num_experts": 2}, {"method": {"quantization": "Int8"}}, "spec.method.quantization (Int8) must be None for s3://models/tiny/: most of its weights are those of experts", id="experts to quantize"),
    pytest.param({"model_type": "rwkv"}, {"method": {"quantization": "NF4"}}, "spec.method.quantization (NF4) must be None for s3://models/tiny/: it divides its weights in place when it is evaluated", id="weights that change in use, to quantize"),
    pytest.param({"linear": {}}, {"method": {"kind": "LoRA"}}, "spec.method.kind (LoRA) must be Full or HeadOnly for s3://models/tiny/: BertForSequenceClassification has no linear layer", id="no layer for an adapter"),
    pytest.param({"heads": [], "is_head_tied": True}, {"method": {"kind": "HeadOnly"}}, "spec.method.kind (HeadOnly) must be LoRA or Full for s3://models/tiny/", id="a head that is the embeddings too"),
]  # fmt: skip


@pytest.mark.parametrize(("structure", "changes", "want"), MISFITS)
def test_what_does_not_fit_the_model_is_refused(structure: dict[str, Any], changes: dict[str, Any], want: str) -> None:
    fit.check_structure(PLAIN, make_spec())
    with pytest.raises(FineTuneError) as caught:
        fit.check_structure(dataclasses.replace(PLAIN, **structure), make_spec(**changes))
    assert want in caught.value.message
    assert caught.value.remedy


def test_a_linear_layer_of_a_class_of_its_own_is_not_quantized(tmp_path: Path) -> None:
    found = inspect(save(build("falcon"), tmp_path))

    assert (found.quantized, found.linear_classes) == ({}, ["FalconLinear"])
    with pytest.raises(ConfigError, match="of which FalconForSequenceClassification has none"):
        fit.check_structure(found, make_spec(method={"quantization": "Int8"}))


LABELS = [
    pytest.param([], ["b", "a"], ["b", "a"], None, id="no head"),
    pytest.param(["sad", "so-so", "glad"], ["glad", "sad", "so-so"], ["sad", "so-so", "glad"], None, id="its labels"),
    pytest.param(["ENTAILMENT", "Not_Entailed"], ["entailment", "not entailed"], ["entailment", "not entailed"], "which are spelled in another way", id="its labels in another spelling"),
    pytest.param(["B", "A"], ["a", "b"], ["b", "a"], "are taken for those of the rows (a, b)", id="in its order"),
    pytest.param(["Aa", "aa"], ["AA", "b"], ["AA", "b"], "its head has other labels (Aa, aa) than the rows (AA, b)", id="ambiguous"),
    pytest.param(["LABEL_0", "LABEL_1"], ["bad", "good"], ["bad", "good"], "has other labels (LABEL_0, LABEL_1)", id="no names"),
]  # fmt: skip


@pytest.mark.parametrize(("own", "labels", "want", "warning"), LABELS)
def test_labels_follow_a_head_that_knows_them(
    own: list[str], labels: list[str], want: list[str], warning: str | None
) -> None:
    found, warnings = fit.order_labels(dataclasses.replace(PLAIN, head_labels=own), labels, SOURCE)
    assert found == want
    assert [warning in text for text in warnings if warning] == ([True] if warning else [])


def test_a_head_for_another_number_of_labels_is_refused() -> None:
    structure = dataclasses.replace(PLAIN, head_labels=["sad", "so-so", "glad"])
    with pytest.raises(ModelError, match=r"a head for 3 labels \(sad, so-so, glad\).* must be .*: 2 \(bad, good\)"):
        fit.order_labels(structure, ["bad", "good"], SOURCE)


TARGETS = [
    (["q_proj"], ["a.q_proj"]),
    (["a.q_proj", "b.v_proj"], ["a.q_proj", "b.v_proj"]),
    (["proj"], []),
    (["all-linear"], ["a.q_proj", "b.v_proj"]),
]


@pytest.mark.parametrize(("targets", "want"), TARGETS, ids=lambda value: " ".join(value) or "none")
def test_a_target_is_the_end_of_a_path_at_a_dot(targets: list[str], want: list[str]) -> None:
    assert list(fit.match_linear({"a.q_proj": (1, 1), "b.v_proj": (1, 1)}, targets)) == want

"""The base model: what headers and configuration tell, and what is refused."""

# ruff: noqa: E501 - a case per line keeps the tables readable

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy
import pytest
import transformers

from finetune_api.errors import ModelError
from finetune_api.kinds.finetunejob.spec import FineTuneJobSpec, ModelSource, Task
from finetune_trainer import tasks
from finetune_trainer.model import architectures
from finetune_trainer.model import facts as base_model
from finetune_trainer.model.facts import ModelFacts
from finetune_trainer.model.tokenizer import load_tokenizer

SOURCE = ModelSource(uri="s3://models/tiny/")


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
    assert (facts.intermediate_size, facts.is_decoder, facts.linear_shapes) == (128, False, {})
    embeddings = (facts.vocabulary_size + 128 + 2) * 64 + 2 * 64
    layer = 4 * (64 * 64 + 64) + (64 * 128 + 128) + (128 * 64 + 64) + 4 * 64
    assert facts.num_parameters == embeddings + 2 * layer + (64 * 64 + 64)


def test_the_facts_of_a_gguf_file(gguf_path: Path) -> None:
    facts = base_model.load_facts(gguf_path.parent, gguf_path.name, SOURCE)
    assert facts == ModelFacts(
        model_type="llama",
        num_parameters=40 * 32 + 32 * 32 + 48 * 32 + 32,
        dtype="F32",
        linear_shapes={},
        num_layers=1,
        hidden_size=32,
        intermediate_size=48,
        vocabulary_size=40,
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


# What it can be trained for.


def test_tasks_that_fit() -> None:
    def fitting(model_type: str, is_decoder: bool = False) -> list[Task]:
        facts = ModelFacts(model_type, 1, "F32", {}, 1, 1, 1, 1, is_decoder)
        return tasks.find_fitting_tasks(facts)

    language = [Task.CAUSAL_LM, Task.INSTRUCTION_TUNING]
    assert fitting("llama") == [Task.SEQUENCE_CLASSIFICATION, *language]
    assert fitting("bert") == [Task.SEQUENCE_CLASSIFICATION]
    assert fitting("bert-generation") == []
    assert fitting("bert", is_decoder=True) == [Task.SEQUENCE_CLASSIFICATION, *language]
    assert fitting("vit") == []
    assert not architectures.is_generative(ModelFacts("bart", 1, "F32", {}, 1, 1, 1, 1, False, is_encoder_decoder=True))


def test_a_size_that_differs_by_layer_counts_as_the_largest(decoder_folder: Path, tmp_path: Path) -> None:
    config = transformers.AutoConfig.from_pretrained(decoder_folder)
    assert base_model.load_facts(decoder_folder, None, SOURCE).intermediate_size == config.intermediate_size == 128
    assert [base_model.find_largest(size) for size in ([64, 256, 128], 128, None, [])] == [256, 128, 0, 0]

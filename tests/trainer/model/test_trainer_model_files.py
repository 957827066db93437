"""The files of a base model: what is fetched and what is refused."""

# ruff: noqa: E501 - a case per line keeps the tables readable

import hashlib
import json
from pathlib import Path

import pytest
from fault_proxy import Fault, FaultProxy
from prepare_bench import PrepareBench

from finetune_api.artifacts import FileEntry, compute_digest
from finetune_api.errors import AccessDenied, ModelError, ReferenceNotFound
from finetune_api.kinds.finetunejob.spec import ModelSource
from finetune_trainer.model import facts as base_model
from finetune_trainer.model import files as model_files
from finetune_trainer.storage import open_store

SOURCE = ModelSource(uri="s3://models/tiny/")

FOLDERS = [
    pytest.param(["config.json", "pytorch_model.bin", "tokenizer.json"], "must hold weights in safetensors; it has only pytorch_model.bin, a format that can run code when it is read", id="a pickled model"),
    pytest.param(["config.json", "model.h5", "flax_model.msgpack", "vocab.txt"], "it has only flax_model.msgpack, model.h5", id="weights of other frameworks"),
    pytest.param(["config.json", "tokenizer.json"], "must hold weights in safetensors; it has none", id="no weights"),
    pytest.param(["config.json", "tokenizer.json", "consolidated.safetensors"], "must hold model.safetensors, or shards and model.safetensors.index.json; it has neither", id="weights under a name that nobody looks for"),
    pytest.param(["config.json", "model.safetensors"], "must hold a tokenizer; none of tokenizer.json, vocab.txt, vocab.json, tokenizer.model, spiece.model is there", id="no tokenizer"),
    pytest.param(["model.safetensors", "tokenizer.json"], "must hold config.json beside its weights; it has no config.json", id="no configuration"),
    pytest.param(["adapter_config.json", "adapter_model.safetensors", "tokenizer.json"], "it has an adapter, not a whole model", id="an adapter"),
    pytest.param(["config.json", "model.safetensors", "tokenizer.json", "adapter_config.json", "adapter_model.safetensors"], "must hold a base model alone; it also has an adapter (adapter_config.json, adapter_model.safetensors)", id="a base model with an adapter"),
    pytest.param(["a.gguf", "b.gguf"], "it has a.gguf, b.gguf; give the file itself as spec.model.uri", id="a folder of GGUF files"),
]  # fmt: skip


@pytest.mark.parametrize(("names", "want"), FOLDERS)
def test_a_folder_that_is_no_safe_model_is_refused(bench: PrepareBench, names: list[str], want: str) -> None:
    for name in names:
        bench.put(f"m/{name}", b"x")
    source = ModelSource(uri=bench.uri("m/"))
    with pytest.raises(ModelError) as caught:
        model_files.list_model(open_store(bench.storage), source)
    assert caught.value.exit_code == 65
    assert caught.value.message.startswith(f"spec.model.uri ({source.uri}) must ")
    assert want in caught.value.message


def test_pickles_beside_safetensors_are_left_out_with_a_warning(bench: PrepareBench) -> None:
    names = ["config.json", "model.safetensors", "tokenizer.json", "pytorch_model.bin", "training_args.bin"]
    for name in [*names, "README.md", "onnx/model.onnx", "checkpoint-1/model.safetensors"]:
        bench.put(f"m/{name}", b"x")
    found = model_files.list_model(open_store(bench.storage), ModelSource(uri=bench.uri("m")))
    assert [file.name for file in found.files] == ["config.json", "model.safetensors", "tokenizer.json"]
    assert found.gguf_file is None
    assert found.warnings == [
        f"spec.model.uri ({bench.uri('m')}): pytorch_model.bin, training_args.bin are left out; only safetensors are read"
    ]


@pytest.mark.parametrize(
    ("weights", "want"),
    [
        pytest.param(["model.safetensors", "consolidated.safetensors"], ["model.safetensors"], id="beside one file"),
        pytest.param(
            ["model-1-of-2.safetensors", "model-2-of-2.safetensors", "consolidated.safetensors"],
            ["model-1-of-2.safetensors", "model-2-of-2.safetensors"],
            id="beside shards",
        ),
    ],
)
def test_weights_that_nobody_reads_are_left_out(bench: PrepareBench, weights: list[str], want: list[str]) -> None:
    for name in [*weights, "config.json", "tokenizer.json"]:
        bench.put(f"m/{name}", b"x")
    if "model.safetensors" not in weights:
        shards = {f"layer.{number}": f"model-{number}-of-2.safetensors" for number in (1, 2)}
        bench.put("m/model.safetensors.index.json", json.dumps({"weight_map": shards}).encode())
    found = model_files.list_model(open_store(bench.storage), ModelSource(uri=bench.uri("m")))
    assert [file.name for file in found.files if file.name.endswith(".safetensors")] == want
    assert found.warnings == [
        f"spec.model.uri ({bench.uri('m')}): consolidated.safetensors are left out; model.safetensors or what"
        " model.safetensors.index.json lists is read"
    ]


def test_one_gguf_file_is_fetched_alone(bench: PrepareBench) -> None:
    bench.put("m/other.gguf", b"x")
    found = model_files.list_model(open_store(bench.storage), ModelSource(uri=bench.put("m/tiny.gguf", b"x")))
    assert ([file.name for file in found.files], found.gguf_file) == (["tiny.gguf"], "tiny.gguf")


def test_a_single_file_of_another_kind_is_refused(bench: PrepareBench) -> None:
    source = ModelSource(uri=bench.put("m/model.bin", b"x"))
    with pytest.raises(ModelError, match=r"must be a folder of safetensors or one \.gguf file; it is model\.bin"):
        model_files.list_model(open_store(bench.storage), source)


def test_a_missing_model_ends_with_66(bench: PrepareBench) -> None:
    with pytest.raises(ReferenceNotFound):
        model_files.list_model(open_store(bench.storage), ModelSource(uri=bench.uri("no-model/")))


def test_a_pinned_model_has_to_be_the_one() -> None:
    entries = [FileEntry(path=name, size=1, sha256=digit * 64) for name, digit in (("b", "1"), ("a", "2"))]
    digest = compute_digest(entries)
    assert model_files.check_pin(SOURCE, entries, None) == digest
    assert model_files.check_pin(SOURCE.model_copy(update={"sha256": digest}), entries, None) == digest
    assert model_files.check_pin(SOURCE.model_copy(update={"sha256": "1" * 64}), entries[:1], "b.gguf") == "1" * 64
    with pytest.raises(ModelError, match=rf"must be the digest of s3://models/tiny/, which is {digest}"):
        model_files.check_pin(SOURCE.model_copy(update={"sha256": "3" * 64}), entries, None)


def test_configuration_and_headers_are_here_before_the_weights(
    bench: PrepareBench, fault_proxy: FaultProxy, models: dict[str, Path], tmp_path: Path
) -> None:
    source = ModelSource(uri=bench.put_model(models["encoder"]))
    store = open_store(bench.storage)
    files = model_files.list_model(store, source)
    # Three small files and the header pass; from then on the store has no body to give.
    fault_proxy.faults.append(Fault("GET", times=1000, status=403, after=len(files.files)))
    with model_files.fetch_behind(store, files, tmp_path / "base", tmp_path / "weights") as pending:
        facts = base_model.load_facts(tmp_path / "base", None, source)
        with pytest.raises(AccessDenied):
            pending.wait()
    assert facts == base_model.load_facts(models["encoder"], None, source)


def test_the_whole_model_has_arrived_after_the_wait(
    bench: PrepareBench, models: dict[str, Path], tmp_path: Path
) -> None:
    store = open_store(bench.storage)
    files = model_files.list_model(store, ModelSource(uri=bench.put_model(models["encoder"])))
    with model_files.fetch_behind(store, files, tmp_path / "base", tmp_path / "weights") as pending:
        entries = pending.wait()
    contents = {path.name: path.read_bytes() for path in models["encoder"].iterdir()}
    want = {
        name: FileEntry(path=name, size=len(content), sha256=hashlib.sha256(content).hexdigest())
        for name, content in contents.items()
    }
    assert {entry.path: entry for entry in entries} == want
    assert (tmp_path / "weights" / "model.safetensors").read_bytes() == contents["model.safetensors"]


def test_weights_that_nobody_waits_for_any_more_hide_no_error(
    bench: PrepareBench, fault_proxy: FaultProxy, models: dict[str, Path], tmp_path: Path
) -> None:
    store = open_store(bench.storage)
    files = model_files.list_model(store, ModelSource(uri=bench.put_model(models["encoder"])))
    fault_proxy.faults.append(Fault("GET", times=1000, status=403, after=len(files.files)))
    with (
        pytest.raises(ModelError, match="of the block"),
        model_files.fetch_behind(store, files, tmp_path / "base", tmp_path / "weights"),
    ):
        raise ModelError("of the block", "nothing")


def test_a_shard_cut_short_is_found_by_its_header(bench: PrepareBench, models: dict[str, Path], tmp_path: Path) -> None:
    for path in models["encoder"].iterdir():
        content = path.read_bytes()
        bench.put(f"cut/{path.name}", content[:-1] if path.suffix == ".safetensors" else content)
    source = ModelSource(uri=bench.uri("cut/"))
    store = open_store(bench.storage)
    files = model_files.list_model(store, source)
    with (
        pytest.raises(ModelError, match=r"model\.safetensors must be a whole safetensors file"),
        model_files.fetch_behind(store, files, tmp_path / "base", tmp_path / "weights"),
    ):
        base_model.load_facts(tmp_path / "base", None, source)


@pytest.mark.parametrize("first_bytes", [8, 100])
def test_a_header_longer_than_the_first_read_is_read_whole(
    bench: PrepareBench, models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, first_bytes: int
) -> None:
    monkeypatch.setattr(model_files, "_FIRST_BYTES", first_bytes)
    source = ModelSource(uri=bench.put_model(models["encoder"]))
    store = open_store(bench.storage)
    files = model_files.list_model(store, source)
    with model_files.fetch_behind(store, files, tmp_path / "base", tmp_path / "weights"):
        facts = base_model.load_facts(tmp_path / "base", None, source)
    assert facts == base_model.load_facts(models["encoder"], None, source)

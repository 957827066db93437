"""Files of a tokenizer that can't be used are the model's fault, whatever the library does with them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import transformers

from finetune_api.artifacts import S3Address
from finetune_api.errors import ModelError
from finetune_api.kinds.finetunejob.spec import ModelSource
from finetune_trainer.data import samples
from finetune_trainer.model import files
from finetune_trainer.model.tokenizer import load_tokenizer
from finetune_trainer.storage import RemoteFile

SOURCE = ModelSource(uri="s3://models/tiny/")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny_models.build_decoder_tokenizer().save_pretrained(folder)
    transformers.LlamaConfig().save_pretrained(folder)
    return folder


def put(name: str, value: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda content: content | {name: value}


def split_by(pattern: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    part = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return put("pre_tokenizer", part)


BAD: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a pattern that can't be compiled": split_by("("),
    "a table that makes the library panic": put("normalizer", {"type": "Precompiled", "precompiled_charsmap": "AAAA"}),
    "merges of what isn't there": lambda content: content | {"model": content["model"] | {"merges": [["zz", "qq"]]}},
    "nothing in it": lambda _: {},
    "a list": lambda _: [],
    "no token for what is unknown": put("model", {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "[UNK]"}),
}


@pytest.mark.parametrize("change", BAD.values(), ids=list(BAD))
def test_a_bad_tokenizer_is_the_models_fault(whole: Path, tmp_path: Path, change: Callable[[Any], Any]) -> None:
    for path in whole.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    changed = change(json.loads((whole / "tokenizer.json").read_text()))
    (tmp_path / "tokenizer.json").write_text(json.dumps(changed))
    with pytest.raises(ModelError) as caught:
        samples.encode_texts(load_tokenizer(tmp_path, None, SOURCE), ["some text"])
    assert caught.value.exit_code == 65
    assert "the tokenizer" in caught.value.message or "a tokenizer" in caught.value.message
    assert caught.value.remedy


@pytest.mark.parametrize("text", ["[" * 100_000, "no JSON"])
def test_a_tokenizer_that_is_no_json_is_the_models_fault(whole: Path, tmp_path: Path, text: str) -> None:
    for path in whole.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(ModelError, match="must hold a tokenizer that can be loaded"):
        load_tokenizer(tmp_path, None, SOURCE)


@pytest.mark.parametrize(("name", "most"), [("tokenizer.json", 64 * 2**20), ("config.json", 4 * 2**20)])
def test_the_files_that_describe_a_model_are_bounded_before_they_are_fetched(name: str, most: int) -> None:
    file = RemoteFile(S3Address("models", f"tiny/{name}"), name, most + 1, "")
    with pytest.raises(ModelError) as caught:
        files._check_sizes([file], "spec.model.uri (s3://models/tiny/)")
    assert caught.value.message == (
        f"spec.model.uri (s3://models/tiny/): {name} ({most + 1} bytes) must have at most {most} bytes"
    )
    files._check_sizes([RemoteFile(file.address, name, most, "")], "spec.model.uri (s3://models/tiny/)")

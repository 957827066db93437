"""A model in one GGUF file becomes the plain folder it was written from."""

import functools
from pathlib import Path
from typing import Any

import gguf
import pytest
import tiny_models
import torch
import transformers
from safetensors.torch import load_file

from finetune_api.errors import ModelError
from finetune_api.kinds.finetunejob.spec import ModelSource
from finetune_trainer.model import facts as base_model
from finetune_trainer.model import gguf_unpack
from finetune_trainer.model.tokenizer import load_tokenizer

SOURCE = ModelSource(uri="s3://models/tiny.gguf")
NAME = "tiny.gguf"


@pytest.fixture(params=[False, True], ids=["with a head", "with a tied head"])
def original(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tiny_models.build_decoder(tmp_path / "original", is_tied=request.param)


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A folder with nothing but the GGUF file in it."""
    folder = tmp_path / "base"
    folder.mkdir()
    tiny_models.write_gguf(original, folder / NAME)
    return folder


def test_the_unpacked_folder_has_the_weights_the_file_was_written_from(original: Path, folder: Path) -> None:
    gguf_unpack.unpack(folder, NAME, SOURCE)

    want, found = load_file(original / "model.safetensors"), load_file(folder / "model.safetensors")
    assert found.keys() == want.keys()
    assert [name for name, weight in want.items() if not torch.equal(found[name], weight)] == []


def test_the_unpacked_folder_loads_as_any_model_and_computes_the_same(original: Path, folder: Path) -> None:
    gguf_unpack.unpack(folder, NAME, SOURCE)

    ids = torch.arange(20)[None]
    with torch.no_grad():
        found, want = (
            transformers.AutoModelForCausalLM.from_pretrained(path)(ids).logits for path in (folder, original)
        )
    assert torch.allclose(found, want, atol=1e-6)
    facts = base_model.load_facts(folder, None, SOURCE)
    assert (facts.model_type, facts.dtype, facts.num_layers) == ("llama", "F32", tiny_models.LAYERS)


def test_the_unpacked_tokenizer_is_the_file_s(original: Path, folder: Path) -> None:
    gguf_unpack.unpack(folder, NAME, SOURCE)

    want, found = (transformers.AutoTokenizer.from_pretrained(path) for path in (original, folder))
    messages = [{"role": "user", "content": "define the noun house:  a building"}]
    assert found.apply_chat_template(messages) == want.apply_chat_template(messages)
    assert found.special_tokens_map == want.special_tokens_map


def test_headers_configuration_and_tokenizer_are_the_same_before_and_after(folder: Path) -> None:
    before = base_model.load_facts(folder, NAME, SOURCE), load_tokenizer(folder, NAME, SOURCE)

    gguf_unpack.unpack(folder, NAME, SOURCE)

    after = base_model.load_facts(folder, None, SOURCE), load_tokenizer(folder, None, SOURCE)
    assert after[0] == before[0]
    assert after[1].backend_tokenizer.to_str() == before[1].backend_tokenizer.to_str()


def test_the_slow_reader_goes_through_the_file_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Any] = []

    @functools.wraps(gguf.GGUFReader)
    def count(path: Any) -> gguf.GGUFReader:
        opened.append(path)
        return reader(path)

    reader = gguf.GGUFReader
    monkeypatch.setattr(gguf, "GGUFReader", count)

    gguf_unpack.unpack(folder, NAME, SOURCE)

    assert opened == [str(folder / NAME)]
    assert gguf.GGUFReader is count


def test_weights_that_do_not_fit_the_architecture_are_refused_by_name(folder: Path, tmp_path: Path) -> None:
    content = (folder / NAME).read_bytes()
    (folder / NAME).write_bytes(content.replace(b"blk.0.attn_q.weight", b"blk.7.attn_q.weight"))

    with pytest.raises(
        ModelError, match=r"must hold all weights of LlamaForCausalLM; missing: model\.layers\.0\.self_attn\.q_proj"
    ):
        gguf_unpack.unpack(folder, NAME, SOURCE)

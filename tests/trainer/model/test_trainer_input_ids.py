"""Rows the model can't take are told by their line, before anybody waits for a GPU."""

import dataclasses
from typing import Any

import pytest
import tiny_models

from finetune_api.errors import ModelError
from finetune_api.kinds.finetunejob.spec import MethodKind
from finetune_trainer.data.samples import Part, Remark, Sample, TokenizedRow
from finetune_trainer.model import input_ids
from finetune_trainer.model.structure import ModelStructure

PLAIN = ModelStructure(
    "X", "x", heads=[], new_modules=[], head_labels=[], linear={}, num_token_types=2, num_embeddings=400
)
SAMPLES = [Sample(0, "t.jsonl line 1", (Part("text", "a"), Part("textPair", "b")))]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny_models.build_decoder_tokenizer()


def fit(tokenizer: Any, row: TokenizedRow, kind: MethodKind = MethodKind.FULL, **changes: Any) -> TokenizedRow:
    [fitted] = input_ids.fit_rows(SAMPLES, [row], dataclasses.replace(PLAIN, **changes), tokenizer, kind)
    return fitted


def test_a_row_that_fits_is_left_as_it_is(tokenizer: Any) -> None:
    row = TokenizedRow({"input_ids": [5, 6], "token_type_ids": [0, 1]}, {"label": 1})
    assert fit(tokenizer, row) == row


def test_a_row_without_a_token_is_told(tokenizer: Any) -> None:
    assert (
        fit(tokenizer, TokenizedRow({"input_ids": []})).problem == "must leave a token; the tokenizer makes none of it"
    )


def test_the_text_of_a_stop_token_is_told_where_the_head_reads_the_last_one(tokenizer: Any) -> None:
    # This tokenizer puts none into a row by itself.
    row = TokenizedRow({"input_ids": [5, tokenizer.eos_token_id, 6]})
    want = "must not hold the text of the stop token <|im_end|>: the model's head reads the last one of a row"
    assert fit(tokenizer, row, reads_stop_token=True).problem == want
    assert fit(tokenizer, row).problem == ""


@pytest.mark.parametrize("kinds", [0, 1])
def test_kinds_of_tokens_that_the_model_does_not_tell_apart_are_left_out(tokenizer: Any, kinds: int) -> None:
    row = TokenizedRow({"input_ids": [5, 6], "token_type_ids": [0, 1]})
    assert fit(tokenizer, row, num_token_types=kinds).lists == {"input_ids": [5, 6]}
    assert fit(tokenizer, row, num_token_types=None) == row


def test_a_token_without_an_embedding_ends_the_stage_only_where_a_row_has_it(tokenizer: Any) -> None:
    assert len(tokenizer) > 300
    assert fit(tokenizer, TokenizedRow({"input_ids": [299]}), num_embeddings=300) == TokenizedRow({"input_ids": [299]})
    with pytest.raises(
        ModelError, match=r"t\.jsonl line 1: token .* \(300\) must be one of the 300 that the model has"
    ):
        fit(tokenizer, TokenizedRow({"input_ids": [300]}), num_embeddings=300)


@pytest.mark.parametrize("kind", [MethodKind.LORA, MethodKind.HEAD_ONLY])
def test_a_model_is_given_tokens_only_where_they_are_trained(tokenizer: Any, kind: MethodKind) -> None:
    row = TokenizedRow({"input_ids": [300]})
    assert fit(tokenizer, row, num_embeddings=300, can_grow=True).remarks == (Remark.ADDED_EMBEDDINGS,)
    with pytest.raises(ModelError) as caught:
        fit(tokenizer, row, kind, num_embeddings=300, can_grow=True)
    assert "or set spec.method.kind to Full, which gives it embeddings and trains them" in caught.value.remedy
    with pytest.raises(ModelError) as caught:
        fit(tokenizer, row, kind, num_embeddings=300)
    assert "Full" not in caught.value.remedy


def test_embeddings_are_counted_by_the_largest_id(tokenizer: Any) -> None:
    assert input_ids.count_tokens(tokenizer) == len(tokenizer)

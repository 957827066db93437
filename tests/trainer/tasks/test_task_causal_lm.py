"""CausalLM: every token of a text is learned, and after the last one the end of the text."""

from typing import Any

import pytest
import tiny_models

from finetune_api.errors import ModelError
from finetune_trainer.data.findings import Findings
from finetune_trainer.data.readers import Record
from finetune_trainer.data.samples import Part, Sample, Segment
from finetune_trainer.tasks.causal_lm import prepare


@pytest.fixture
def tokenizer() -> Any:
    """Its pad token is its stop token."""
    return tiny_models.build_decoder_tokenizer()


def build_sample(text: str) -> Sample:
    return Sample(0, "t.jsonl line 1", (Part("text", text),))


def test_a_row_becomes_a_sample() -> None:
    record = Record("t.jsonl line 1", {"body": "the old man"})
    assert prepare.parse_sample(0, record, {"text": "body"}, Findings()) == build_sample("the old man")


def test_what_is_no_text_is_a_finding() -> None:
    findings = Findings()
    assert prepare.parse_sample(0, Record("t.jsonl line 1", {"text": 3}), {"text": "text"}, findings) is None
    assert findings.kept == ["t.jsonl line 1: text must be a text, not int"]


def test_a_text_is_learned_whole_with_its_end(tokenizer: Any) -> None:
    (row,) = prepare.tokenize_batch([build_sample("the old man")], tokenizer, 100, {})
    ids = row.lists["input_ids"]
    assert tokenizer.decode(ids) == "the old man<|im_end|>"
    assert (row.lists["labels"], row.is_truncated) == (ids, False)
    assert prepare.build_segments(row) == [Segment(ids, is_learned=True)]


def test_a_text_that_is_too_long_is_cut_and_has_no_end(tokenizer: Any) -> None:
    (row,) = prepare.tokenize_batch([build_sample("the old man and his dog")], tokenizer, 4, {})
    assert (len(row.lists["input_ids"]), row.is_truncated) == (4, True)
    assert row.lists["input_ids"][-1] != tokenizer.eos_token_id


def test_a_tokenizer_without_a_stop_token_is_refused(tokenizer: Any) -> None:
    assert prepare.check_tokenizer(tokenizer, {"text": "text"}) == {"stopToken": "<|im_end|>"}
    tokenizer.eos_token = None
    with pytest.raises(ModelError, match=r"the tokenizer must have an end-of-text token \(eos_token\)"):
        prepare.check_tokenizer(tokenizer, {"text": "text"})

"""Any conversation through the preparation of InstructionTuning, with templates of many kinds.

Whatever a row holds, it ends in DataError or ModelError or is learned; what is learned stands in the assistant's turns,
and is exactly what the assistant says, with the end of each turn.
"""

import functools
import json
import re
from typing import Any

import published_templates
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_api.errors import DataError, ModelError
from finetune_trainer.data.findings import Findings
from finetune_trainer.data.readers import Record
from finetune_trainer.data.samples import IGNORED, Part, Sample, TokenizedRow
from finetune_trainer.model import special_tokens
from finetune_trainer.tasks.instruction_tuning import prepare

TEMPLATES = (
    "qwen2.5",
    "qwen3",
    "phi-4-mini",
    "llama-3.1",
    "llama-2",
    "gemma-3",
    "mistral-v3",
    "deepseek-r1",
    "smollm3",
)
COLUMNS = {"messages": "messages"}
ENDS = {"phi-4-mini": "<|end|><|endoftext|>", "llama-2": " </s>"}
"""What ends a turn, where it isn't the stop token alone."""

TEXTS = st.one_of(
    st.sampled_from(
        [
            *("a", "<", "Question?", "Answer.", "user", "assistant\n", " ", "{{ x }}", "%}", "Message 0.", "a\n\n\nb"),
            *(
                "<think>",
                "<think>x</think>y",
                "</think>",
                "[INST]",
                "<|im_end|>",
                '{"a": "b"}',
                "\u200b",
                "é\u0301",
                "🐞",
            ),
        ]
    ),
    st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=12),
)
CONTENTS = st.one_of(
    TEXTS,
    st.none(),
    st.integers(),
    st.lists(st.one_of(st.none(), st.fixed_dictionaries({"type": st.just("text"), "text": TEXTS})), max_size=2),
    st.dictionaries(st.sampled_from(["text", "type"]), TEXTS, max_size=2),
)
ROLES = st.sampled_from(["system", "user", "assistant", "tool", "human", "gpt", "Assistant", "nobody", "", None, 3])
CALLS = st.one_of(st.none(), st.just([]), st.just([{"function": {"name": "f", "arguments": "{}"}}]))
MESSAGES = st.one_of(
    st.fixed_dictionaries(
        {"role": ROLES, "content": CONTENTS}, optional={"name": st.none() | TEXTS, "tool_calls": CALLS}
    ),
    st.fixed_dictionaries({"from": ROLES, "value": CONTENTS}),
    st.none(),
    TEXTS,
    st.lists(TEXTS, max_size=1),
)
WILD = st.one_of(st.lists(MESSAGES, max_size=5), st.lists(MESSAGES, max_size=4).map(json.dumps), CONTENTS)


@st.composite
def conversations(draw: st.DrawFn) -> list[dict[str, str]]:
    """Draw turns in an order that templates know: a system's or none, then questions and their answers."""
    text = TEXTS.filter(lambda text: bool(text.strip()) and "\0" not in text)
    turns = [{"role": "system", "content": draw(text)}] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        turns += [{"role": "user", "content": draw(text)}, {"role": "assistant", "content": draw(text)}]
    return turns


@functools.cache
def get_tokenizer(name: str) -> Any:
    return published_templates.build_tokenizer(name)


def prepare_row(messages: object, name: str) -> tuple[Sample | None, list[TokenizedRow]]:
    findings = Findings()
    sample = prepare.parse_sample(0, Record("t.jsonl line 1", {"messages": messages}), COLUMNS, findings)
    try:
        findings.raise_if_any()
        assert sample is not None
        return sample, prepare.tokenize_batch([sample], get_tokenizer(name), 4096, {})
    except (DataError, ModelError):
        return None, []


def check_row(row: TokenizedRow) -> None:
    ids, labels = row.lists["input_ids"], row.lists["labels"]
    assert len(ids) == len(labels)
    assert all(label in (token, IGNORED) for token, label in zip(ids, labels, strict=True))
    if row.problem or row.omitted:
        assert row.remedy
    else:
        assert any(label != IGNORED for label in labels)


def squeeze(text: str) -> str:
    """Leave out blanks, which templates set and take away, and JSON's escapes."""
    return re.sub(r"\s", "", text)


@pytest.mark.parametrize("name", TEMPLATES)
@settings(max_examples=60, deadline=None)
@given(messages=WILD)
def test_whatever_messages_hold_ends_well_or_with_a_reason(name: str, messages: object) -> None:
    for row in prepare_row(messages, name)[1]:
        check_row(row)


@pytest.mark.parametrize("name", TEMPLATES)
@settings(max_examples=60, deadline=None)
@given(turns=conversations())
def test_what_is_learned_is_what_the_assistant_says_and_the_end_of_its_turn(
    name: str, turns: list[dict[str, str]]
) -> None:
    sample, rows = prepare_row(turns, name)
    if sample is None or any(row.problem or row.omitted for row in rows):
        return
    tokenizer = get_tokenizer(name)
    answers = [part.text for part in sample.parts if part.role == "assistant"]
    learned = [
        tokenizer.decode(item.token_ids) for row in rows for item in prepare.build_segments(row) if item.is_learned
    ]
    for row in rows:
        check_row(row)
    assert len(learned) == len(answers)
    end = ENDS.get(name, tokenizer.eos_token)
    for text, answer in zip(learned, answers, strict=True):
        said = squeeze(text).removesuffix(squeeze(end))
        assert len(said) < len(squeeze(text)), (text, end)
        # Templates set and take away the marks of reasoning, not what stands between them.
        assert re.sub("</?think>", "", said) == re.sub("</?think>", "", squeeze(answer))


@functools.cache
def get_tokenizer_of_texts(name: str) -> Any:
    tokenizer = published_templates.build_tokenizer(name)
    special_tokens.read_as_text(tokenizer)
    return tokenizer


def count_special(turns: list[dict[str, str]], name: str) -> int | None:
    """Count the special tokens of a conversation; None where it can't be learned."""
    tokenizer = get_tokenizer_of_texts(name)
    sample = Sample(0, "", tuple(Part(turn["role"], turn["content"]) for turn in turns))
    rows = prepare.tokenize_batch([sample], tokenizer, 4096, {})
    if any(row.problem or row.omitted for row in rows):
        return None
    special = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    return sum(token in special for row in rows for token in row.lists["input_ids"])


@pytest.mark.parametrize("name", ["qwen2.5", "phi-4-mini", "llama-3.1", "gemma-3", "mistral-small"])
@settings(max_examples=60, deadline=None)
@given(turns=conversations())
def test_read_as_text_messages_make_no_special_token_and_break_none_of_the_template(
    name: str, turns: list[dict[str, str]]
) -> None:
    plain = [turn | {"content": f"Say {index}."} for index, turn in enumerate(turns)]
    assert count_special(turns, name) in (count_special(plain, name), None)

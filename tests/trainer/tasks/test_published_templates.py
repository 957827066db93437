"""Conversations in templates with the structure of published ones: each answer is learned as it would be in use.

In brackets stands what is learned. A conversation that a template can't hold is refused, with the template's reason.
"""

# ruff: noqa: E501, RUF001 - a case per line keeps the tables readable; DeepSeek writes its tokens with wide bars

import datetime
from typing import Any

import published_templates
import pytest
from published_templates import PUBLISHED

from finetune_trainer.data.samples import IGNORED, Part, Remark, Sample, TokenizedRow
from finetune_trainer.model.chat_template import ChatTemplate
from finetune_trainer.tasks.instruction_tuning import prepare

SYSTEM = ("system", "Be brief.")
ASK, ANSWER = ("user", "What is a house?"), ("assistant", "A building.")
ASK_AGAIN, ANSWER_AGAIN = ("user", "And a dog?"), ("assistant", "An animal.")
CALL, RESULT = ("assistant", "call"), ("tool", '{"t": "20 °C"}')
REASONED = ("assistant", "<think>I think.</think>A building.")
REASONED_AGAIN = ("assistant", "<think>\nHm.\n</think>\n\nAn animal.")

Turns = tuple[tuple[str, str], ...]
ONE: Turns = (ASK, ANSWER)
TWO: Turns = (ASK, ANSWER, ASK_AGAIN, ANSWER_AGAIN)
TODAY = datetime.datetime.now().astimezone().strftime("%Y-%m-%d")

LEARNED: list[tuple[str, Turns, list[str]]] = [
    ("qwen2.5", (SYSTEM, *TWO), ["<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhat is a house?<|im_end|>\n<|im_start|>assistant\n⟦A building.<|im_end|>⟧\n<|im_start|>user\nAnd a dog?<|im_end|>\n<|im_start|>assistant\n⟦An animal.<|im_end|>⟧\n"]),
    ("qwen2.5", ONE, ["<|im_start|>system\nYou are helpful.<|im_end|>\n<|im_start|>user\nWhat is a house?<|im_end|>\n<|im_start|>assistant\n⟦A building.<|im_end|>⟧\n"]),
    ("qwen2.5", (ASK, CALL, RESULT, ANSWER), ['<|im_start|>system\nYou are helpful.<|im_end|>\n<|im_start|>user\nWhat is a house?<|im_end|>\n<|im_start|>assistant\n⟦call<|im_end|>⟧\n<|im_start|>user\n<tool_response>\n{"t": "20 °C"}\n</tool_response><|im_end|>\n<|im_start|>assistant\n⟦A building.<|im_end|>⟧\n']),
    ("qwen3", ONE, ["<|im_start|>user\nWhat is a house?<|im_end|>\n<|im_start|>assistant\n⟦<think>\n\n</think>\n\nA building.<|im_end|>⟧\n"]),
    ("qwen3", (SYSTEM, *TWO), ["<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhat is a house?<|im_end|>\n<|im_start|>assistant\n⟦<think>\n\n</think>\n\nA building.<|im_end|>⟧\n", "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhat is a house?<|im_end|>\n<|im_start|>assistant\nA building.<|im_end|>\n<|im_start|>user\nAnd a dog?<|im_end|>\n<|im_start|>assistant\n⟦<think>\n\n</think>\n\nAn animal.<|im_end|>⟧\n"]),
    ("qwen3", (ASK, REASONED, ASK_AGAIN, REASONED_AGAIN), ["<|im_start|>user\nWhat is a house?<|im_end|>\n<|im_start|>assistant\n⟦<think>\nI think.\n</think>\n\nA building.<|im_end|>⟧\n", "<|im_start|>user\nWhat is a house?<|im_end|>\n<|im_start|>assistant\nA building.<|im_end|>\n<|im_start|>user\nAnd a dog?<|im_end|>\n<|im_start|>assistant\n⟦<think>\nHm.\n</think>\n\nAn animal.<|im_end|>⟧\n"]),
    ("qwen3", (ASK, ("assistant", "<think>\nI call.\n</think>\n\ncall"), RESULT, REASONED), ['<|im_start|>user\nWhat is a house?<|im_end|>\n<|im_start|>assistant\n⟦<think>\nI call.\n</think>\n\ncall<|im_end|>⟧\n<|im_start|>user\n<tool_response>\n{"t": "20 °C"}\n</tool_response><|im_end|>\n<|im_start|>assistant\n⟦<think>\nI think.\n</think>\n\nA building.<|im_end|>⟧\n']),
    ("phi-3", (SYSTEM, *TWO), ["<|system|>\nBe brief.<|end|>\n<|user|>\nWhat is a house?<|end|>\n<|assistant|>\n⟦A building.<|end|>\n<|endoftext|>⟧", "<|system|>\nBe brief.<|end|>\n<|user|>\nWhat is a house?<|end|>\n<|assistant|>\nA building.<|end|>\n<|user|>\nAnd a dog?<|end|>\n<|assistant|>\n⟦An animal.<|end|>\n<|endoftext|>⟧"]),
    ("phi-4-mini", TWO, ["<|user|>What is a house?<|end|><|assistant|>⟦A building.<|end|><|endoftext|>⟧", "<|user|>What is a house?<|end|><|assistant|>A building.<|end|><|user|>And a dog?<|end|><|assistant|>⟦An animal.<|end|><|endoftext|>⟧"]),
    ("phi-4-mini", (ASK, CALL, RESULT, ANSWER), ["<|user|>What is a house?<|end|><|assistant|>⟦call<|end|><|endoftext|>⟧", '<|user|>What is a house?<|end|><|assistant|>call<|end|><|tool_response|>"{\\"t\\": \\"20 °C\\"}"<|end|><|assistant|>⟦A building.<|end|><|endoftext|>⟧']),
    ("phi-4", (SYSTEM, *TWO), ["<|im_start|>system<|im_sep|>Be brief.<|im_end|><|im_start|>user<|im_sep|>What is a house?<|im_end|><|im_start|>assistant<|im_sep|>⟦A building.<|im_end|>⟧<|im_start|>user<|im_sep|>And a dog?<|im_end|><|im_start|>assistant<|im_sep|>⟦An animal.<|im_end|>⟧"]),
    ("llama-3.1", (SYSTEM, *ONE), ["<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nToday Date: 26 Jul 2024\n\nBe brief.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nWhat is a house?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n⟦A building.<|eot_id|>⟧"]),
    ("llama-3.1", (ASK, CALL, RESULT, ("assistant", " A building.\n")), ['<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nToday Date: 26 Jul 2024\n\n<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nWhat is a house?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n⟦call<|eot_id|>⟧<|start_header_id|>ipython<|end_header_id|>\n\n"{\\"t\\": \\"20 °C\\"}"<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n⟦A building.<|eot_id|>⟧']),
    ("llama-2", (SYSTEM, *TWO), ["<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nWhat is a house? [/INST]⟦ A building. </s>⟧<s>[INST] And a dog? [/INST]⟦ An animal. </s>⟧"]),
    ("gemma-2", TWO, ["<bos><start_of_turn>user\nWhat is a house?<end_of_turn>\n<start_of_turn>model\n⟦A building.<end_of_turn>⟧\n<start_of_turn>user\nAnd a dog?<end_of_turn>\n<start_of_turn>model\n⟦An animal.<end_of_turn>⟧\n"]),
    ("gemma-3", (SYSTEM, *TWO), ["<bos><start_of_turn>user\nBe brief.\n\nWhat is a house?<end_of_turn>\n<start_of_turn>model\n⟦A building.<end_of_turn>⟧\n<start_of_turn>user\nAnd a dog?<end_of_turn>\n<start_of_turn>model\n⟦An animal.<end_of_turn>⟧\n"]),
    ("mistral-v3", TWO, ["<s>[INST] What is a house?[/INST]⟦ A building.</s>⟧[INST] And a dog?[/INST]⟦ An animal.</s>⟧"]),
    ("mistral-v3", (SYSTEM, *TWO), ["<s>[INST] Be brief.\n\nWhat is a house?[/INST]⟦ A building.</s>⟧", "<s>[INST] What is a house?[/INST] A building.</s>[INST] Be brief.\n\nAnd a dog?[/INST]⟦ An animal.</s>⟧"]),
    ("mistral-small", (SYSTEM, *ONE), ["<s>[SYSTEM_PROMPT]Be brief.[/SYSTEM_PROMPT][INST]What is a house?[/INST]⟦A building.</s>⟧"]),
    ("mistral-small", ONE, [f"<s>[SYSTEM_PROMPT]You are helpful. Today is {TODAY}.[/SYSTEM_PROMPT][INST]What is a house?[/INST]⟦A building.</s>⟧"]),
    ("deepseek-r1", (SYSTEM, *ONE), ["<｜begin▁of▁sentence｜>Be brief.<｜User｜>What is a house?<｜Assistant｜>⟦A building.<｜end▁of▁sentence｜>⟧"]),
    ("deepseek-r1", (ASK, REASONED, ASK_AGAIN, REASONED_AGAIN), ["<｜begin▁of▁sentence｜><｜User｜>What is a house?<｜Assistant｜><think>\n⟦I think.</think>A building.<｜end▁of▁sentence｜>⟧", "<｜begin▁of▁sentence｜><｜User｜>What is a house?<｜Assistant｜>A building.<｜end▁of▁sentence｜><｜User｜>And a dog?<｜Assistant｜><think>\n⟦Hm.\n</think>\n\nAn animal.<｜end▁of▁sentence｜>⟧"]),
    ("smollm3", TWO, ["<|im_start|>user\nWhat is a house?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n⟦A building.<|im_end|>⟧\n<|im_start|>user\nAnd a dog?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n⟦An animal.<|im_end|>⟧\n"]),
    ("vicuna", (SYSTEM, *TWO), ["Be brief. USER: What is a house? ASSISTANT:⟦ A building.</s>⟧USER: And a dog? ASSISTANT:⟦ An animal.</s>⟧"]),
    ("alpaca", (SYSTEM, *TWO), ["Be brief.\n\n### Instruction:\nWhat is a house?\n\n### Response:\n⟦A building.</s>⟧\n\n### Instruction:\nAnd a dog?\n\n### Response:\n⟦An animal.</s>⟧\n\n"]),
]  # fmt: skip

REFUSED: list[tuple[str, Turns, str, str]] = [
    ("gemma-2", (SYSTEM, *ONE), "must accept the conversation; it says: System role not supported", "put what it says into the first message of the user"),
    ("gemma-3", (ASK, CALL, RESULT, ANSWER), "must accept the conversation; it says: Conversation roles must alternate", "give the roles in the order"),
    ("mistral-small", (ASK, CALL, RESULT, ANSWER), "must accept the conversation; it says: Only user and assistant roles are supported", "give the roles in the order"),
    ("deepseek-r1", (ASK, ("assistant", "Hm.</think>A building.")), "messages[2] (assistant) must stand whole in what the template makes of the conversation", "such as reasoning before </think>"),
]  # fmt: skip

OMITTED: list[tuple[str, Turns, str]] = [
    ("phi-3", (ASK, CALL, RESULT, ANSWER), "messages[3] (tool)"),
    ("phi-4", (ASK, CALL, RESULT, ANSWER), "messages[3] (tool)"),
    ("vicuna", (SYSTEM, ASK, CALL, RESULT, ANSWER), "messages[4] (tool)"),
    ("deepseek-r1", (SYSTEM, ASK, ANSWER, ("system", "Be warm."), ASK_AGAIN, ANSWER_AGAIN), "messages[1] (system)"),
]


def name_case(value: Any) -> str:
    return value if isinstance(value, str) and value in PUBLISHED else ""


def tokenize(tokenizer: Any, turns: Turns) -> list[TokenizedRow]:
    sample = Sample(0, "t.jsonl line 1", tuple(Part(role, text) for role, text in turns))
    return prepare.tokenize_batch([sample], tokenizer, 4096, {})


def show(row: TokenizedRow, tokenizer: Any) -> str:
    segments = prepare.build_segments(row)
    return "".join(f"⟦{tokenizer.decode(s.token_ids)}⟧" if s.is_learned else tokenizer.decode(s.token_ids) for s in segments)  # fmt: skip


@pytest.mark.parametrize(("name", "turns", "want"), LEARNED, ids=name_case)
def test_answers_are_learned_as_the_template_has_them(name: str, turns: Turns, want: list[str]) -> None:
    tokenizer = published_templates.build_tokenizer(name)
    rows = tokenize(tokenizer, turns)
    assert [row.problem or row.omitted for row in rows] == [""] * len(want)
    assert [show(row, tokenizer) for row in rows] == want
    assert [Remark.ONE_ANSWER in row.remarks for row in rows] == [len(want) > 1] * len(want)


@pytest.mark.parametrize(("name", "turns", "want"), LEARNED, ids=name_case)
def test_before_the_last_answer_stands_what_the_template_asks_with(name: str, turns: Turns, want: list[str]) -> None:
    tokenizer = published_templates.build_tokenizer(name)
    template = ChatTemplate(tokenizer)
    answers = [index for index, (role, _) in enumerate(turns) if role == "assistant"]
    rows = tokenize(tokenizer, turns)
    for row, last in zip(rows, answers[-len(rows) :] if len(rows) == 1 else answers, strict=True):
        *_, segment = [item for item in prepare.build_segments(row) if item.is_learned]
        ids, labels = row.lists["input_ids"], row.lists["labels"]
        end = len(labels) - next(n for n, label in enumerate(reversed(labels)) if label != IGNORED)
        before = tokenizer.decode(ids[: end - len(segment.token_ids)])
        asked = template.render([{"role": role, "content": text} for role, text in turns[:last]], is_asking=True)
        is_opened = Remark.OPENED_ANSWER in row.remarks
        assert asked.rstrip().startswith(before) if is_opened else before.rstrip() == asked.rstrip()


@pytest.mark.parametrize(("name", "turns", "want", "remedy"), REFUSED, ids=name_case)
def test_what_a_template_cannot_hold_is_refused_with_its_reason(
    name: str, turns: Turns, want: str, remedy: str
) -> None:
    problems = {row.problem: row.remedy for row in tokenize(published_templates.build_tokenizer(name), turns)}
    problems.pop("", None)
    assert [(want in problem, remedy in said) for problem, said in problems.items()] == [(True, True)]


@pytest.mark.parametrize(("name", "turns", "want"), OMITTED, ids=name_case)
def test_a_turn_that_a_template_leaves_out_is_named(name: str, turns: Turns, want: str) -> None:
    rows = tokenize(published_templates.build_tokenizer(name), turns)
    named = {row.omitted for row in rows if row.omitted}
    assert [want in text for text in named] == [True]
    assert all("set spec.training.omittedTurns to Warn" in row.remedy for row in rows if row.omitted)


def test_an_answer_without_the_reasoning_that_a_template_opens_is_counted() -> None:
    tokenizer = published_templates.build_tokenizer("deepseek-r1")
    assert tokenize(tokenizer, ONE)[0].remarks == (Remark.OPENED_ANSWER,)
    assert tokenize(tokenizer, (ASK, REASONED))[0].remarks == ()
    # The first letter of the answer is also that of the block.
    (row,) = tokenize(tokenizer, (ASK, ("assistant", "<b>A building.</b>")))
    assert show(row, tokenizer).endswith("<｜Assistant｜>⟦<b>A building.</b><｜end▁of▁sentence｜>⟧")


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_probe_says_which_token_ends_an_answer(name: str) -> None:
    tokenizer = published_templates.build_tokenizer(name)
    found = prepare.check_tokenizer(tokenizer, {"messages": "messages"})
    assert found["stopToken"] == PUBLISHED[name].eos

"""Each task's data side on real tokenizers: which tokens it makes, and exactly which of them are learned."""

# ruff: noqa: E501 - a case per line keeps the tables readable

from pathlib import Path
from typing import Any

import pytest
import tiny_models
import transformers

from finetune_api.errors import ModelError
from finetune_trainer import tasks
from finetune_trainer.data import samples
from finetune_trainer.data.findings import Findings
from finetune_trainer.data.readers import Record
from finetune_trainer.data.samples import IGNORED, Part, Remark, Sample, TokenizedRow
from finetune_trainer.model import chat_template
from finetune_trainer.tasks.causal_lm import prepare as causal_lm
from finetune_trainer.tasks.instruction_tuning import prepare as instruction_tuning
from finetune_trainer.tasks.sequence_classification import prepare as sequence_classification

MESSAGES = {"messages": "messages"}
PROMPT = {"prompt": "prompt", "completion": "completion"}


@pytest.fixture(scope="module")
def encoder(models: dict[str, Path]) -> Any:
    return transformers.AutoTokenizer.from_pretrained(models["encoder"])


@pytest.fixture
def decoder() -> Any:
    """Its pad token is its stop token."""
    return tiny_models.build_decoder_tokenizer()


def talk(*parts: tuple[str, str]) -> Sample:
    return Sample(0, "t.jsonl line 1", tuple(Part(role, text) for role, text in parts))


def learned(row: TokenizedRow, tokenizer: Any) -> list[str]:
    """Return the segments that are learned, as text."""
    assert [
        token
        for token, label in zip(row.lists["input_ids"], row.lists["labels"], strict=True)
        if label not in (token, IGNORED)
    ] == []
    segments: list[list[int]] = [[]]
    for token, label in zip(row.lists["input_ids"], row.lists["labels"], strict=True):
        if label == IGNORED:
            segments.append([])
        else:
            segments[-1].append(token)
    return [tokenizer.decode(segment) for segment in segments if segment]


def tokenize(sample: Sample, tokenizer: Any, max_length: int = 100) -> TokenizedRow:
    return instruction_tuning.tokenize_batch([sample], tokenizer, max_length, {})[0]


@pytest.mark.parametrize("add_special_tokens", [True, False])
def test_texts_are_encoded_whole_as_a_call_of_the_tokenizer_would(
    encoder: Any, decoder: Any, *, add_special_tokens: bool
) -> None:
    texts = ["The dog runs.", "", "Ein Käfer 🐞 läuft weg. " * 40, "<|im_end|> is text here\n\n"]
    for tokenizer in (encoder, decoder):
        want = tokenizer(texts, add_special_tokens=add_special_tokens)["input_ids"]
        # Both as a tokenizer.json may have them.
        tokenizer.backend_tokenizer.enable_truncation(8)
        tokenizer.backend_tokenizer.enable_padding()
        assert samples.encode_texts(tokenizer, texts, add_special_tokens=add_special_tokens) == want


# Rows.

BAD_ROWS = [
    pytest.param(sequence_classification, {"text": "text", "label": "label"}, {"text": "", "label": 1.5}, ["text must not be empty", "label (1.5) must be a text or a whole number"], id="text and label"),
    pytest.param(sequence_classification, {"text": "a", "textPair": "b", "label": "c"}, {"a": "x", "c": 1}, ["b is missing; it must be a text"], id="a pair's second text"),
    pytest.param(instruction_tuning, PROMPT, {"prompt": 1, "completion": " "}, ["prompt must be a text, not int", "completion must not be empty"], id="prompt and completion"),
    pytest.param(instruction_tuning, {"instruction": "i", "output": "o", "input": "x"}, {"i": "a", "o": "b", "x": 3}, ["x must be a text, not int"], id="input"),
    pytest.param(instruction_tuning, MESSAGES, {"messages": "hello"}, ["messages must be a list of messages"], id="no list"),
    pytest.param(instruction_tuning, MESSAGES, {"messages": []}, ["messages must be a list of messages"], id="an empty list"),
    pytest.param(instruction_tuning, MESSAGES, {"messages": ["x"]}, ["messages[1] must be an object with role and content, or with from and value"], id="a message that is a text"),
    pytest.param(instruction_tuning, MESSAGES, {"messages": [{"role": "nobody", "content": ""}]}, ["messages[1].role (nobody) must be one of system, user, assistant, tool", "messages[1].content must not be empty"], id="unknown role, no content"),
    pytest.param(instruction_tuning, MESSAGES, {"messages": [{"role": "user", "content": "x", "weight": 1}]}, ["messages[1] must have role and content only, not weight"], id="a key that would be ignored"),
    pytest.param(instruction_tuning, MESSAGES, {"messages": [{"role": "\ud800\n" + "x" * 999, "content": "x", "\ud800k": 1}]}, ["messages[1].role (\"\\ud800\\n" + "x" * 77 + "…\") must be one of system, user, assistant, tool", "messages[1] must have role and content only, not \"\\ud800k\""], id="a role without end and a key without UTF-8"),
    pytest.param(instruction_tuning, MESSAGES, {"messages": [{"role": "user", "content": "x"}]}, ["messages must end with a message of the assistant, not user"], id="no answer"),
    pytest.param(instruction_tuning, MESSAGES, {"messages": [{"role": "assistant", "content": "x"}]}, ["messages must begin with a message the assistant answers"], id="no question"),
]  # fmt: skip


@pytest.mark.parametrize(("task", "columns", "values", "want"), BAD_ROWS)
def test_everything_wrong_with_a_row_is_found(
    task: tasks.TaskPreparation, columns: dict[str, str], values: dict[str, object], want: list[str]
) -> None:
    findings = Findings()
    assert task.parse_sample(4, Record("t.jsonl line 5", values), columns, findings) is None
    assert findings.kept == [f"t.jsonl line 5: {message}" for message in want]


@pytest.mark.parametrize(
    ("extra", "want"), [("", "Add"), (None, "Add"), ("1 and 2", "Add\n\n1 and 2")], ids=["empty", "absent", "given"]
)
def test_an_input_stands_below_its_instruction(extra: str | None, want: str) -> None:
    record = Record("p", {"i": "Add", "o": "3", "x": extra})
    sample = instruction_tuning.parse_sample(0, record, {"instruction": "i", "output": "o", "input": "x"}, Findings())
    assert sample == Sample(0, "p", (Part("user", want), Part("assistant", "3")))


# SequenceClassification.


def test_classification_rows_are_cut_counted_and_labelled(encoder: Any) -> None:
    samples = [
        Sample(0, "p", (Part("text", "a dull plot"),), ("neg",)),
        Sample(1, "p", (Part("text", "plot " * 50),), ("pos",)),
    ]
    short, long = sequence_classification.tokenize_batch(samples, encoder, 16, {"neg": 0, "pos": 1})
    assert encoder.decode(short.lists["input_ids"]) == "[CLS] a dull plot [SEP]"
    assert (short.numbers, short.is_truncated, list(short.lists)) == ({"label": 0}, False, ["input_ids"])
    assert (long.numbers["label"], long.is_truncated, len(long.lists["input_ids"])) == (1, True, 16)
    assert long.lists["input_ids"][-1] == encoder.sep_token_id


def test_pairs_carry_token_types(encoder: Any) -> None:
    sample = Sample(0, "p", (Part("text", "a dull plot"), Part("textPair", "poor acting")), ("x",))
    (row,) = sequence_classification.tokenize_batch([sample], encoder, 64, {"x": 7})
    assert encoder.decode(row.lists["input_ids"]) == "[CLS] a dull plot [SEP] poor acting [SEP]"
    first = row.lists["input_ids"].index(encoder.sep_token_id) + 1
    assert row.lists["token_type_ids"] == [0] * first + [1] * (len(row.lists["input_ids"]) - first)
    assert row.numbers == {"label": 7}


# InstructionTuning.


def test_the_answer_and_its_end_of_turn_are_learned_and_nothing_else(decoder: Any) -> None:
    row = tokenize(talk(("user", "define house"), ("assistant", "a building")), decoder)
    assert decoder.decode(row.lists["input_ids"]) == (
        "<|im_start|>user\ndefine house<|im_end|>\n<|im_start|>assistant\na building<|im_end|>\n"
    )
    assert learned(row, decoder) == ["a building<|im_end|>"]
    # The stop token is the pad token here, and it stands three times in the row: learned once.
    assert decoder.pad_token_id == decoder.eos_token_id
    assert row.lists["labels"].count(decoder.eos_token_id) == 1


def test_of_a_conversation_every_answer_is_learned(decoder: Any) -> None:
    sample = talk(
        *(("system", "be kind"), ("user", "hello"), ("assistant", "good day"), ("user", "how"), ("assistant", "fine"))
    )
    row = tokenize(sample, decoder)
    assert learned(row, decoder) == ["good day<|im_end|>", "fine<|im_end|>"]


def test_the_learned_tokens_follow_the_prompt_as_generation_sees_it(decoder: Any) -> None:
    row = tokenize(talk(("user", "define house"), ("assistant", " a building")), decoder)
    prompt = decoder.apply_chat_template(
        [{"role": "user", "content": "define house"}], tokenize=False, add_generation_prompt=True
    )
    ids = decoder(prompt, add_special_tokens=False)["input_ids"]
    assert row.lists["input_ids"][: len(ids)] == ids
    assert row.lists["labels"][: len(ids)] == [IGNORED] * len(ids)
    assert row.lists["labels"][len(ids)] == row.lists["input_ids"][len(ids)]


def test_a_token_over_the_border_of_prompt_and_answer_is_learned_and_counted(decoder: Any) -> None:
    decoder.chat_template = None
    # "the" is one token, of the prompt's last letter and the answer's first ones.
    assert len(decoder("the")["input_ids"]) == 1
    row = tokenize(talk(("user", "in t"), ("assistant", "he beginning")), decoder)
    assert row.lists["input_ids"] == [*decoder("in the beginning")["input_ids"], decoder.eos_token_id]
    assert learned(row, decoder) == [" the beginning<|im_end|>"]
    assert row.remarks == (Remark.MERGED_BORDER,)
    assert tokenize(talk(("user", "in"), ("assistant", " the")), decoder).remarks == ()


def test_without_a_template_prompt_and_answer_follow_each_other(decoder: Any) -> None:
    decoder.chat_template = None
    row = tokenize(talk(("user", "define house:"), ("assistant", " a building")), decoder)
    assert decoder.decode(row.lists["input_ids"]) == "define house: a building<|im_end|>"
    assert learned(row, decoder) == [" a building<|im_end|>"]
    assert instruction_tuning.check_tokenizer(decoder, PROMPT) == {
        "chatTemplate": "none: prompt and answer as they are",
        "stopToken": "<|im_end|>",
    }


def test_a_template_that_ends_no_turn_gets_the_end_of_text(decoder: Any) -> None:
    decoder.chat_template = (
        "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    )
    row = tokenize(talk(("user", "define house"), ("assistant", "a building")), decoder)
    assert decoder.decode(row.lists["input_ids"]) == "user: define house\nassistant: a building<|im_end|>"
    assert learned(row, decoder) == [" a building<|im_end|>"]
    talked = talk(("user", "define house"), ("assistant", " a building"), ("user", "and dog"), ("assistant", " warm"))
    rows = instruction_tuning.tokenize_batch([talked], decoder, 100, {})
    assert [learned(row, decoder) for row in rows] == [[" a building<|im_end|>"], [" warm<|im_end|>"]]


def test_a_template_that_opens_a_block_of_reasoning_for_generation_only(decoder: Any) -> None:
    decoder.chat_template = tiny_models.CHAT_TEMPLATE.replace("assistant\n' }}", "assistant\n<think>\n' }}")
    row = tokenize(talk(("user", "define house"), ("assistant", "a building")), decoder)
    assert learned(row, decoder) == ["a building<|im_end|>"]


def test_an_answer_cut_off_by_the_length_leaves_nothing_to_learn(decoder: Any) -> None:
    row = tokenize(talk(("user", "define house " * 20), ("assistant", "a building")), decoder, max_length=16)
    assert (len(row.lists["input_ids"]), row.lists["labels"], row.is_truncated) == (16, [IGNORED] * 16, True)


def test_messages_without_a_chat_template_are_refused(decoder: Any) -> None:
    decoder.chat_template = None
    with pytest.raises(ModelError, match="must have a chat template to train on messages; it has none"):
        instruction_tuning.check_tokenizer(decoder, MESSAGES)


def test_what_a_template_refuses_is_named_with_the_row(decoder: Any) -> None:
    decoder.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(ModelError, match="roles must alternate"):
        instruction_tuning.check_tokenizer(decoder, PROMPT)
    decoder.chat_template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system here') }}{% endif %}"
        + tiny_models.CHAT_TEMPLATE
    )
    row = tokenize(talk(("system", "s"), ("user", "x"), ("assistant", "y")), decoder)
    assert row.problem == "the model's chat template must accept the conversation; it says: no system here"


def test_where_a_template_changes_earlier_answers_each_is_learned_as_in_use(decoder: Any) -> None:
    decoder.chat_template = (
        "{% for m in messages %}{{ m['role'] }}: {% if loop.last or m['role'] != 'assistant' %}{{ m['content'] }}"
        "{% endif %}<|im_end|>{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
    )
    assert instruction_tuning.check_tokenizer(decoder, MESSAGES)["stopToken"] == "<|im_end|>"
    sample = talk(("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))
    rows = instruction_tuning.tokenize_batch([sample, talk(("user", "e"), ("assistant", "f"))], decoder, 100, {})
    assert [(row.sample, decoder.decode(row.lists["input_ids"])) for row in rows] == [
        (0, "user: a<|im_end|>assistant: b<|im_end|>"),
        (0, "user: a<|im_end|>assistant: <|im_end|>user: c<|im_end|>assistant: d<|im_end|>"),
        (1, "user: e<|im_end|>assistant: f<|im_end|>"),
    ]
    assert [learned(row, decoder)[0].strip() for row in rows] == ["b<|im_end|>", "d<|im_end|>", "f<|im_end|>"]
    assert [Remark.ONE_ANSWER in row.remarks for row in rows] == [True, True, False]


MARKED = (
    "{% for m in messages %}{% if m.role == 'assistant' %}<|im_start|>assistant\n{% generation %}{{ m.content }}"
    "{% endgeneration %}<|im_end|>{% else %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{% endif %}"
    "{% if not loop.last %}\n{% endif %}{% endfor %}"
)


@pytest.mark.parametrize(
    "template", [MARKED, MARKED.replace("{% endgeneration %}<|im_end|>", "<|im_end|>{% endgeneration %}")]
)
def test_the_templates_own_marks_say_what_is_learned(decoder: Any, template: str) -> None:
    decoder.chat_template = template
    sample = talk(("user", "assistant"), ("assistant", "a"), ("user", "c"), ("assistant", "user"))
    (row,) = instruction_tuning.tokenize_batch([sample], decoder, 100, {})
    assert learned(row, decoder) == ["a<|im_end|>", "user<|im_end|>"]
    assert instruction_tuning.check_tokenizer(decoder, MESSAGES)["stopToken"] == "<|im_end|>"


ONLY_TWO_ROLES = (
    "{% for m in messages %}{% if m.role in ['user', 'assistant'] %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.mark.parametrize("role", ["system", "tool"])
def test_a_turn_that_the_template_leaves_out_is_refused_with_its_role(decoder: Any, role: str) -> None:
    decoder.chat_template = ONLY_TWO_ROLES
    parts = [("user", "hello"), ("assistant", "bonjour")]
    row = tokenize(talk((role, "Answer in French."), *parts), decoder)
    assert row.problem == ""
    assert row.omitted == (
        f"the model's chat template: messages[1] ({role}) must stand in what the template makes of the conversation;"
        " it doesn't"
    )
    assert "set spec.training.omittedTurns to Warn" in row.remedy
    assert learned(row, decoder) == ["bonjour<|im_end|>"]
    assert tokenize(talk(*parts), decoder).omitted == ""


def test_an_answer_that_ends_with_a_token_of_its_own_still_gets_the_stop_token(decoder: Any) -> None:
    decoder.add_tokens(["</tool_call>"])
    decoder.chat_template = None
    row = tokenize(talk(("user", "weather?"), ("assistant", "<tool_call>{}</tool_call>")), decoder)
    assert learned(row, decoder) == ["<tool_call>{}</tool_call><|im_end|>"]
    assert row.lists["labels"][-1] == decoder.eos_token_id


def test_every_answer_ends_with_the_stop_token_whatever_it_says(decoder: Any) -> None:
    for template in (None, tiny_models.CHAT_TEMPLATE, ONLY_TWO_ROLES, MARKED):
        decoder.chat_template = template
        for answer in ("x", "ends with a blank ", "a\n\n", "<|im_end|>", "a <|im_start|>", "assistant", "user\n"):
            for row in instruction_tuning.tokenize_batch([talk(("user", "q"), ("assistant", answer))], decoder, 99, {}):
                segment = learned(row, decoder)
                assert segment[-1].endswith("<|im_end|>"), (template, answer, segment)
                assert answer.strip() in segment[-1]


def test_one_begin_of_text_token_stands_before_a_text_that_brings_its_own(decoder: Any) -> None:
    from tokenizers.processors import TemplateProcessing

    start = (tiny_models.START_TOKEN, decoder.bos_token_id)
    decoder.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{start[0]} $A", pair=None, special_tokens=[start]
    )
    (row,) = causal_lm.tokenize_batch([talk(("text", "<|im_start|>the film"))], decoder, 99, {})
    assert row.lists["input_ids"].count(decoder.bos_token_id) == 1
    assert row.remarks == (Remark.REPEATED_BOS,)
    decoder.chat_template = None
    row = tokenize(talk(("user", "<|im_start|>the film"), ("assistant", " is warm")), decoder)
    assert row.lists["input_ids"].count(decoder.bos_token_id) == 1
    assert learned(row, decoder) == [" is warm<|im_end|>"]


BAD_TEMPLATES = {
    "a division by zero": "{{ 1 / 0 }}",
    "a wrong type": "{{ messages + 1 }}",
    "a macro that calls itself": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "an include": "{% include 'x' %}",
    "no template": "{% if %}",
    "a long text": "{{ 'x' * 10000000000 }}",
    "a text doubled": "{% set n = namespace(x='xx') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "a text doubled by plus": "{% set n = namespace(x='xx') %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "much output": "{% for i in range(99999) %}{{ messages[0].content * 1000 }}{% endfor %}",
    "much output in a variable": "{% set x %}{% for i in range(99999) %}{{ 'x' * 9999 }}{% endfor %}{% endset %}{{ x|length }}",
    "a large number": "{{ 10 ** 10 ** 10 }}",
    "a wide text": "{{ 'x'.ljust(10000000000) }}",
    "a centred text": "{{ 'x'|center(10000000000) }}",
    "a wide format": "{{ '%10000000000d' % 1 }}",
    "texts put into texts": "{{ ('a' * 999999)|replace('a', 'b' * 999999) }}",
    "what the sandbox forbids": "{{ ''.__class__.__mro__ }}",
    "no answers": "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}",
    "answers changed": "{% for m in messages %}{{ m.role }}: {{ m.content|upper }}<|im_end|>{% endfor %}",
}


@pytest.mark.parametrize("template", BAD_TEMPLATES.values(), ids=list(BAD_TEMPLATES))
def test_a_bad_chat_template_is_the_models_fault(decoder: Any, template: str) -> None:
    decoder.chat_template = template
    with pytest.raises(ModelError, match="chat template must") as caught:
        instruction_tuning.check_tokenizer(decoder, PROMPT)
    assert caught.value.remedy


def test_a_loop_without_end_is_ended(decoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_template, "MAX_SECONDS", 0.2)
    decoder.chat_template = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    with pytest.raises(ModelError, match=r"the chat template must take at most 0\.2 seconds"):
        instruction_tuning.check_tokenizer(decoder, PROMPT)


@pytest.mark.parametrize("template", [tiny_models.CHAT_TEMPLATE, ONLY_TWO_ROLES])
def test_a_template_renders_as_transformers_renders_it(decoder: Any, template: str) -> None:
    decoder.chat_template = template
    messages = [{"role": "user", "content": "a\n{{ b }}"}, {"role": "assistant", "content": "c"}]
    for is_asking in (True, False):
        want = decoder.apply_chat_template(messages, tokenize=False, add_generation_prompt=is_asking)
        assert chat_template.ChatTemplate(decoder).render(messages, is_asking=is_asking) == want


def test_a_tokenizer_that_panics_is_the_models_fault(decoder: Any) -> None:
    class Panicking:
        truncation = padding = None

        def encode_batch_fast(self, *_: object, **__: object) -> None:
            raise type("PanicException", (BaseException,), {})("called `Option::unwrap()` on a `None` value")

    class Tokenizer:
        backend_tokenizer = Panicking()

    with pytest.raises(ModelError, match=r"the tokenizer must be able to encode texts; called `Option::unwrap\(\)`"):
        samples.encode_texts(Tokenizer(), ["x"])  # type: ignore[arg-type] # all that is asked of it


def test_the_template_is_recorded_by_its_digest(decoder: Any, tmp_path: Path) -> None:
    found = instruction_tuning.check_tokenizer(decoder, PROMPT)
    assert found["stopToken"] == "<|im_end|>"
    assert found["chatTemplate"].startswith("sha256:")

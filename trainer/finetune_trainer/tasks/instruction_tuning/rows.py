"""InstructionTuning: a model learns answers, each with its end of turn, and nothing of what was asked.

Rows: prompt and completion; instruction, optionally input, and output; or messages of a conversation. Where the
tokenizer has a chat template the row is put into it as user and assistant; else prompt and answer follow each other as
they are.

The mask is found by length: the tokens of the text up to an answer are counted, never searched for by id, because in
many models the end of a turn is the padding token too.
"""

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jinja2

from finetune_api import wording
from finetune_api.errors import DataError, ModelError
from finetune_trainer.data import samples as dataset
from finetune_trainer.data.findings import Findings
from finetune_trainer.data.readers import Record
from finetune_trainer.data.samples import IGNORED, Part, Sample, Shape, Stretch, TokenizedRow
from finetune_trainer.model import architectures
from finetune_trainer.model.facts import ModelFacts
from finetune_trainer.planning import memory

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TOKENS: tuple[str, ...] = ("input_ids",)
TARGETS = "labels"
MODEL_CLASS = "AutoModelForCausalLM"
ADAPTER_TASK = "CAUSAL_LM"
HAS_OWN_HEAD = False
PIPELINE = "text-generation"
ANSWERS = "next tokens"
SHAPES: tuple[Shape, ...] = (
    Shape(required={"messages": ("messages", "conversations", "conversation")}),
    Shape(
        required={
            "prompt": ("prompt", "question", "query"),
            "completion": ("completion", "response", "answer"),
        }
    ),
    Shape(
        required={
            "instruction": ("instruction",),
            "output": ("output", "response", "answer", "completion"),
        },
        optional={"input": ("input", "context")},
    ),
)
_ROLES = ("system", "user", "assistant")


def parse_sample(row: int, record: Record, columns: Mapping[str, str], findings: Findings) -> Sample | None:
    """Check a row and return it as a sample, or None after noting everything that is wrong with it."""
    if "messages" in columns:
        parts = _parse_messages(record, columns["messages"], findings)
        return None if parts is None else Sample(row, record.place, tuple(parts))
    asked, answered = ("prompt", "completion") if "prompt" in columns else ("instruction", "output")
    prompt = dataset.read_text(record, columns[asked], findings)
    answer = dataset.read_text(record, columns[answered], findings)
    if prompt is None or answer is None:
        return None
    extra = record.values.get(columns["input"]) if "input" in columns else None
    if extra is None or (isinstance(extra, str) and not extra.strip()):
        return Sample(row, record.place, (Part("user", prompt), Part("assistant", answer)))
    if problem := dataset.check_text(extra):
        findings.add(record.place, f"{columns['input']} {problem}")
        return None
    prompt = f"{prompt}\n\n{extra}"
    return Sample(row, record.place, (Part("user", prompt), Part("assistant", answer)))


def _parse_messages(record: Record, column: str, findings: Findings) -> list[Part] | None:
    messages = record.values.get(column)
    if not isinstance(messages, list) or not messages:
        findings.add(record.place, f"{column} must be a list of messages")
        return None
    before = findings.total
    parts = []
    for number, message in enumerate(messages, 1):
        place = f"{column}[{number}]"
        if not isinstance(message, dict):
            findings.add(record.place, f"{place} must be an object with role and content")
            continue
        role, content = message.get("role"), message.get("content")
        if role not in _ROLES:
            findings.add(record.place, f"{place}.role ({wording.show_value(role)}) must be one of {', '.join(_ROLES)}")
        if problem := dataset.check_text(content):
            findings.add(record.place, f"{place}.content {problem}")
        if unknown := sorted(set(message) - {"role", "content", "name"}):
            findings.add(record.place, f"{place} must have role and content only, not {wording.show_names(unknown)}")
        parts.append(Part(str(role), str(content)))
    if findings.total == before:
        if parts[-1].role != "assistant":
            findings.add(record.place, f"{column} must end with a message of the assistant, not {parts[-1].role}")
        if parts[0].role == "assistant":
            findings.add(record.place, f"{column} must begin with a message the assistant answers")
    return parts if findings.total == before else None


@dataclass(frozen=True, slots=True)
class _Rendered:
    """A sample as the text the model sees, and where what is learned begins and ends in it: start, end, start, end …"""

    text: str
    cuts: tuple[int, ...]


def check_tokenizer(tokenizer: "PreTrainedTokenizerBase", columns: Mapping[str, str]) -> dict[str, str]:
    """Check that the tokenizer can render the rows and mark the end of an answer.

    Raises:
        ModelError: messages without a chat template, a template whose answers can't be found, or no end-of-text token.
    """
    if tokenizer.eos_token_id is None:
        raise ModelError(
            "spec.model.uri: the tokenizer must have an end-of-text token (eos_token); it has none",
            "set eos_token in tokenizer_config.json.",
        )
    if not tokenizer.chat_template:
        if "messages" in columns:
            raise ModelError(
                "spec.model.uri: the tokenizer must have a chat template to train on messages; it has none",
                "use an instruction-tuned model, or rows of prompt and completion.",
            )
        return {"chatTemplate": "none: prompt and answer as they are", "stopToken": str(tokenizer.eos_token)}
    probe = Sample(0, "spec.model.uri: chat template", (Part("user", "Question?"), Part("assistant", "Answer.")))
    try:
        row = tokenize_batch([probe], tokenizer, 2**20, {})[0]
    except DataError as error:
        raise ModelError(
            error.message, "use a model whose chat template renders one message after the other."
        ) from error
    learned = [token for token in row.lists["labels"] if token != IGNORED]
    digest = hashlib.sha256(str(tokenizer.chat_template).encode()).hexdigest()
    return {"chatTemplate": f"sha256:{digest}", "stopToken": str(tokenizer.convert_ids_to_tokens(learned[-1]))}


def tokenize_batch(
    samples: Sequence[Sample], tokenizer: "PreTrainedTokenizerBase", max_length: int, label_ids: Mapping[str, int]
) -> list[TokenizedRow]:
    """Turn samples into tokens, of which the answers and their ends of turn are labels; cut to `max_length`.

    Raises:
        DataError: the chat template refuses a conversation or renders earlier turns anew.
    """
    del label_ids
    render = _render_chat if tokenizer.chat_template else _render_plain
    rendered = [render(sample, tokenizer) for sample in samples]
    head = [] if tokenizer.chat_template else _find_head(tokenizer)
    rows = []
    for item, (ids, cuts) in zip(rendered, _tokenize_rendered(rendered, tokenizer), strict=True):
        tokens, spans = [*head, *ids], [cut + len(head) for cut in cuts]
        if tokens[spans[-1] - 1] not in tokenizer.added_tokens_decoder and not item.text[item.cuts[-1] :].strip():
            # Nothing of the template ends the answer, so the end of the text has to: else the model never stops.
            tokens = [*tokens[: spans[-1]], tokenizer.eos_token_id]
            spans[-1] += 1
        labels = [IGNORED] * len(tokens)
        for start, end in zip(spans[::2], spans[1::2], strict=True):
            labels[start:end] = tokens[start:end]
        lists = {"input_ids": tokens[:max_length], "labels": labels[:max_length]}
        rows.append(TokenizedRow(lists, is_truncated=len(tokens) > max_length))
    return rows


def build_stretches(row: TokenizedRow) -> list[Stretch]:
    """Return a row's tokens in stretches that are learned or not."""
    return dataset.build_stretches(row.lists["input_ids"], row.lists["labels"])


def fits_model(facts: ModelFacts) -> bool:
    """Tell whether the architecture writes texts from left to right."""
    return architectures.is_generative(facts)


def build_model_arguments(labels: Sequence[str]) -> dict[str, Any]:
    """Return nothing: a language model is trained as it is."""
    del labels
    return {}


def is_packable(model_type: str) -> bool:
    """Tell whether several rows may share one."""
    return model_type in architectures.PACKED_DECODERS


def predict_output_bytes(facts: ModelFacts, tokens: int, width: int, device: str) -> int:
    """Predict the memory of logits and their loss: one per token and vocabulary entry."""
    return memory.predict_logit_bytes(facts, tokens, width, device)


def _render_plain(sample: Sample, tokenizer: "PreTrainedTokenizerBase") -> _Rendered:
    del tokenizer
    prompt, answer = (part.text for part in sample.parts)
    return _Rendered(prompt + answer, (len(prompt), len(prompt) + len(answer)))


def _render_chat(sample: Sample, tokenizer: "PreTrainedTokenizerBase") -> _Rendered:
    messages = [{"role": part.role, "content": part.text} for part in sample.parts]

    def render(count: int, is_asking: bool = False) -> str:
        return str(tokenizer.apply_chat_template(messages[:count], tokenize=False, add_generation_prompt=is_asking))

    try:
        text = render(len(messages))
        cuts: list[int] = []
        for index, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            history, asking, answered = render(index), render(index, is_asking=True), render(index + 1)
            # Not the length of `asking`: some templates open a block of reasoning there that an answer needn't have.
            start = _count_common(asking, answered)
            if start < len(history) or not text.startswith(answered.rstrip()):
                raise DataError(
                    f"{sample.place}: messages[{index + 1}] must look the same to the chat template before and after"
                    " later turns; it does not",
                    "use conversations with one answer, or another model.",
                )
            cuts += (start, len(answered.rstrip()))
    except jinja2.TemplateError as error:
        raise DataError(
            f"{sample.place}: the model's chat template must accept the conversation; it says: {error}",
            "give the roles in the order the model knows.",
        ) from error
    return _Rendered(text, tuple(cuts))


def _count_common(first: str, second: str) -> int:
    """Count the characters both texts begin with."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((index for index, (left, right) in pairs if left != right), min(len(first), len(second)))


def _find_head(tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """Return the begin-of-text token where the tokenizer puts one."""
    empty: list[int] = tokenizer("")["input_ids"]
    return empty[:1] if empty and empty[0] == tokenizer.bos_token_id else []


def _tokenize_rendered(
    items: Sequence[_Rendered], tokenizer: "PreTrainedTokenizerBase"
) -> list[tuple[list[int], list[int]]]:
    """Return the tokens of each text and its cuts counted in tokens."""
    prefixes = [item.text[:cut] for item in items for cut in item.cuts]
    texts = [item.text for item in items]
    encoded = dataset.encode_texts(tokenizer, [*texts, *prefixes], add_special_tokens=False)
    wholes, heads = encoded[: len(items)], iter(encoded[len(items) :])
    results = []
    for item, ids in zip(items, wholes, strict=True):
        befores = [next(heads) for _ in item.cuts]
        if all(ids[: len(before)] == before for before in befores):
            results.append((ids, [len(before) for before in befores]))
        else:
            results.append(_tokenize_pieces(item, tokenizer))
    return results


def _tokenize_pieces(item: _Rendered, tokenizer: "PreTrainedTokenizerBase") -> tuple[list[int], list[int]]:
    """Tokenize each stretch on its own: a token would reach over a cut, and in use the prompt ends there."""
    edges = [0, *item.cuts, len(item.text)]
    pieces = [item.text[start:end] for start, end in itertools.pairwise(edges)]
    ids: list[int] = []
    cuts: list[int] = []
    for piece in pieces:
        ids += dataset.encode_texts(tokenizer, [piece], add_special_tokens=False)[0] if piece else []
        cuts.append(len(ids))
    return ids, cuts[:-1]

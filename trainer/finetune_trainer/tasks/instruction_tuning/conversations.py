"""Rows of instructions as turns of a conversation, whatever form they come in.

Three forms: messages, as OpenAI or ShareGPT write them; prompt and completion; instruction, input and output. A value
of null is no value: parquet has one wherever another row has a field.
"""

import json
from collections.abc import Mapping
from typing import Any

from finetune_api import wording
from finetune_trainer.data import values
from finetune_trainer.data.columns import Shape
from finetune_trainer.data.findings import Findings
from finetune_trainer.data.readers import Record
from finetune_trainer.data.samples import Part, Sample

_SYSTEM = ("system", "system_prompt", "system_message", "systemprompt")
_CONTEXT = ("context", "passage", "document")
SHAPES: tuple[Shape, ...] = (
    Shape(
        required={"messages": ("messages", "conversations", "conversation")},
        optional={"system": _SYSTEM},
    ),
    Shape(
        required={"prompt": ("prompt", "question", "query"), "completion": ("completion", "response", "answer")},
        optional={"context": _CONTEXT, "system": _SYSTEM},
    ),
    Shape(
        required={"instruction": ("instruction",), "output": ("output", "response", "answer", "completion")},
        optional={"input": ("input", "context"), "system": _SYSTEM},
    ),
)
ROLES = ("system", "user", "assistant", "tool")
_SHARED_ROLES = {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "observation": "tool",
    "function": "tool",
    "developer": "system",
}
"""Names of roles that ShareGPT and others use."""
_KEYS = {"role", "content", "name"}


def parse_sample(row: int, record: Record, columns: Mapping[str, str], findings: Findings) -> Sample | None:
    """Check a row and return it as a sample, or None after noting everything that is wrong with it."""
    before = findings.total
    parse = _parse_messages if "messages" in columns else _parse_pair
    parts = parse(record, columns, findings)
    if "system" in columns and (system := values.read_optional_text(record, columns["system"], findings)):
        if parts and parts[0].role == "system":
            findings.add(record.place, f"{columns['system']} must not be given beside a system message of its own")
        parts.insert(0, Part("system", system))
    return Sample(row, record.place, tuple(parts)) if findings.total == before else None


def _parse_pair(record: Record, columns: Mapping[str, str], findings: Findings) -> list[Part]:
    asked, answered = ("prompt", "completion") if "prompt" in columns else ("instruction", "output")
    prompt = values.read_text(record, columns[asked], findings) or ""
    answer = values.read_text(record, columns[answered], findings) or ""
    if "context" in columns and (context := values.read_optional_text(record, columns["context"], findings)):
        prompt = f"{context}\n\n{prompt}"
    if "input" in columns and (extra := values.read_optional_text(record, columns["input"], findings)):
        prompt = f"{prompt}\n\n{extra}"
    return [Part("user", prompt), Part("assistant", answer)]


def _parse_messages(record: Record, columns: Mapping[str, str], findings: Findings) -> list[Part]:
    column = columns["messages"]
    messages = _read_list(record.values.get(column))
    if not isinstance(messages, list) or not messages:
        findings.add(
            record.place,
            f"{column} must be a list of messages",
            "give each message as an object with role and content, or with from and value.",
        )
        return []
    before = findings.total
    parts = [
        part
        for number, message in enumerate(messages, 1)
        if (part := _parse_message(message, f"{column}[{number}]", record.place, findings)) is not None
    ]
    if findings.total == before:
        if parts[-1].role != "assistant":
            findings.add(record.place, f"{column} must end with a message of the assistant, not {parts[-1].role}")
        if parts[0].role == "assistant":
            findings.add(record.place, f"{column} must begin with a message the assistant answers")
    return parts


def _read_list(value: object) -> object:
    """Return a list of messages that stands in a cell as JSON text, as tables have it; another value as it is."""
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _parse_message(message: Any, path: str, place: str, findings: Findings) -> Part | None:
    if not isinstance(message, dict):
        findings.add(place, f"{path} must be an object with role and content, or with from and value")
        return None
    given = {key: value for key, value in message.items() if value is not None}
    names = ("from", "value") if "from" in given and "role" not in given else ("role", "content")
    role, content = given.get(names[0]), _join_texts(given.get(names[1]))
    role = _SHARED_ROLES.get(role.lower(), role.lower()) if isinstance(role, str) else role
    before = findings.total
    if role not in ROLES:
        findings.add(
            place, f"{path}.{names[0]} ({wording.show_value(given.get(names[0]))}) must be one of {', '.join(ROLES)}"
        )
    if problem := values.check_text(content):
        findings.add(place, f"{path}.{names[1]} {problem}")
    if unknown := sorted(key for key in set(given) - _KEYS - set(names) if given[key]):
        findings.add(
            place,
            f"{path} must have {names[0]} and {names[1]} only, not {wording.show_names(unknown)}",
            "write what the model is to read or say, calls of tools too, as the text of a message.",
        )
    if "name" in given:
        findings.note("names of messages (name) are not read")
    return Part(str(role), str(content)) if findings.total == before else None


def _join_texts(content: object) -> object:
    """Return a content that is a list of texts, as OpenAI writes it, as one text."""
    if not isinstance(content, list) or not content:
        return content
    if not all(isinstance(item, dict) and item.get("type") == "text" for item in content):
        return content
    texts = [item.get("text") for item in content]
    return "".join(texts) if all(isinstance(text, str) for text in texts) else content

"""What a chat template writes around messages to steer the model, as text that a message can hold too.

`<|im_start|>` and `[INST]` look like nothing else; `### Response:` and `USER:` are what stands right before a message.
Found by rendering conversations whose messages are known: what lies between them is the template's own.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from finetune_api.errors import ModelError
from finetune_trainer.model.chat_template import ChatTemplate, RefusedError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MARKUP = re.compile(r"<{1,2}[^<>\s]{1,40}>{1,2}|\[/?[A-Z_]{2,40}\]")
_HEADING = re.compile(r"(?:^|[\s.])((?:#{1,6} )?[A-Z][A-Za-z_]{1,20}(?: [A-Za-z_]{1,20}){0,2}:)\s*$")
"""What stands before a message as a heading of it: up to three words and a colon."""
_CONVERSATIONS = (("user", "assistant"), ("system", "user", "assistant"), ("user", "assistant", "user", "assistant"))


@dataclass(frozen=True, slots=True)
class ControlTexts:
    """What a template writes around messages."""

    markup: frozenset[str] = frozenset()
    headings: frozenset[str] = frozenset()
    answering: frozenset[str] = frozenset()
    """Markup that the template writes within an answer, such as a block of reasoning: the assistant may hold it."""


def find_control_texts(tokenizer: "PreTrainedTokenizerBase") -> ControlTexts:
    """Return what the tokenizer's chat template writes around messages; nothing where there is none, or it fails."""
    if not tokenizer.chat_template:
        return ControlTexts()
    frames: list[str] = []
    openings: list[str] = []
    others: list[str] = []
    try:
        template = ChatTemplate(tokenizer)
        for roles in _CONVERSATIONS:
            found = _render_frames(template, roles)
            frames += found
            openings += found[-2:-1]
            others += [frame for frame, role in zip(found, roles, strict=False) if role != "assistant"]
        asked = _render_asking(template)
    except ModelError:
        return ControlTexts()  # a task that needs the template has been told
    frames.append(asked)
    headings = {match[1] for frame in frames if (match := _HEADING.search(frame))}
    markup = _find_markup(frames)
    before, asking = _find_markup(openings), _find_markup([asked])
    own = (before | asking) - _find_markup(others)
    answering = (before ^ asking) | {text for text in own if _get_partner(text) in own}
    return ControlTexts(frozenset(markup), frozenset(headings), frozenset(answering))


def _find_markup(frames: Sequence[str]) -> set[str]:
    return {text for frame in frames for text in _MARKUP.findall(frame)}


def _get_partner(text: str) -> str:
    """Return what closes the markup, or opens it."""
    return text.replace("/", "", 1) if text[1] == "/" else f"{text[0]}/{text[1:]}"


def _render_frames(template: ChatTemplate, roles: Sequence[str]) -> list[str]:
    """Return what stands before each message of a conversation, and behind the last one; nothing if it is refused."""
    messages = [{"role": role, "content": f"Message {index}."} for index, role in enumerate(roles)]
    try:
        rest = template.render(messages)
    except RefusedError:
        return []
    frames = []
    for message in messages:
        before, found, after = rest.partition(message["content"])
        if found:
            frames.append(before)
            rest = after
    return [*frames, rest]


def _render_asking(template: ChatTemplate) -> str:
    """Return what the template writes behind a question to have it answered."""
    try:
        return template.render([{"role": "user", "content": "Message."}], is_asking=True).partition("Message.")[2]
    except RefusedError:
        return ""

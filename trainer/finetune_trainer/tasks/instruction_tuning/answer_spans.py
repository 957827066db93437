"""Where in the text of a conversation an answer stands, with the end of its turn: what is learned of it.

Told by the template's own marks, or by what it writes where an answer is asked for and where one is given.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from finetune_trainer.model.chat_template import ChatTemplate
from finetune_trainer.tasks.instruction_tuning import content_search

Messages = Sequence[dict[str, str]]


@dataclass(frozen=True, slots=True)
class Span:
    """A segment that is learned: first and last + 1 character."""

    start: int
    end: int
    is_opened: bool = False
    """Whether the template, where it asks, writes more before an answer than stands there."""


def find_marked(
    text: str, mark: tuple[int, int] | None, messages: Messages, template: ChatTemplate, end: str
) -> Span | None:
    """Return the segment that the template marks, but for what it writes itself where it asks.

    Args:
        text: of the conversation.
        mark: first and last + 1 character; None where its marks are others than one for each answer.
        messages: before the answer.
        template: of the model.
        end: with which it ends the turn of an answer.
    """
    if mark is None:
        return None
    first, last = mark
    # Some leave the end of the turn out of their marks: without it no model would learn to stop.
    last += len(end) if end and text.startswith(end, last) else 0
    # Some mark what is written behind the end of the turn, and before the answer.
    trimmed = text[first:last].rstrip()
    last = first + len(trimmed) if end and trimmed.endswith(end) else last
    asking = template.render(messages, is_asking=True)
    return Span(max(first, len(asking)) if text.startswith(asking) and len(asking) < last else first, last)


def find_span(text: str, index: int, messages: Messages, template: ChatTemplate, end: str) -> Span | None:
    """Return the segment of an answer; None where the template writes it otherwise later on.

    Args:
        text: of the conversation.
        index: of the answer.
        messages: of the conversation.
        template: of the model.
        end: with which it ends the turn of an answer.
    """
    history = template.render(messages[:index])
    asking = template.render(messages[:index], is_asking=True)
    answered = template.render(messages[: index + 1]).rstrip()
    start = _count_common(asking, answered)
    if start < _count_common(history, asking) or not text.startswith(answered):
        return None
    if answered.startswith(asking):
        return Span(start, len(answered))
    # Some open a block of reasoning where they ask that an answer needn't have; both may begin with the same letter.
    content = messages[index]["content"]
    place = content_search.find_last(content, answered, _count_common(history, asking), len(answered.removesuffix(end)))
    start = start if place is None else min(start, place[0])
    return Span(start, len(answered), is_opened=bool(asking[start:].strip()))


def _count_common(first: str, second: str) -> int:
    """Count the characters both texts begin with."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((index for index, (left, right) in pairs if left != right), min(len(first), len(second)))

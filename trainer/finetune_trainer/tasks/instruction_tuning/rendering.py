"""A conversation as the text the model sees, and which segments of it are learned.

What is learned of an answer is what the model would have to write: its text and the end of its turn. Where that begins
and ends is told by the template's own marks, or by what it writes before and after the answer. A template that writes
an answer otherwise once others follow has each answer learned in a text of its own, as in use.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from finetune_api.errors import ModelError
from finetune_trainer.data.samples import Part, Sample
from finetune_trainer.model.chat_template import ChatTemplate, RefusedError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_QUESTION, _ANSWER = "Question?", "Answer."
_REMEDY = "use a model whose chat template renders one message after the other, each with its text."


@dataclass(frozen=True, slots=True)
class Rendered:
    """A text and its segments that are learned: first and last + 1 character of each."""

    text: str
    spans: tuple[tuple[int, int], ...]
    contents: tuple[tuple[int, int], ...]
    """Where the texts of the messages stand in it."""
    problem: str = ""
    """What is wrong with the sample; it can't be learned then."""


@functools.lru_cache(maxsize=4)
def _compile(tokenizer: "PreTrainedTokenizerBase", source: str) -> ChatTemplate:
    del source  # a changed template is another one
    return ChatTemplate(tokenizer)


def find_template(tokenizer: "PreTrainedTokenizerBase") -> ChatTemplate:
    """Return the tokenizer's chat template, compiled once."""
    return _compile(tokenizer, str(tokenizer.chat_template))


@functools.lru_cache(maxsize=4)
def find_end(template: ChatTemplate) -> str:
    """Return what the template writes behind an answer to end its turn; nothing where it ends none.

    Raises:
        ModelError: it fails on the plainest conversation, or leaves the answer out.
    """
    sample = Sample(0, "", (Part("user", _QUESTION), Part("assistant", _ANSWER)))
    try:
        text = template.render(_build_messages(sample.parts)).rstrip()
    except RefusedError as error:
        raise ModelError(
            f"spec.model.uri: the chat template must take a question and its answer; {error}", _REMEDY
        ) from error
    start = text.rfind(_ANSWER)
    if start < 0:
        raise ModelError(
            "spec.model.uri: the chat template must write what the assistant says; it leaves answers out", _REMEDY
        )
    return text[start + len(_ANSWER) :]


def render_answers(sample: Sample, template: ChatTemplate, *, has_stop: bool) -> list[Rendered]:
    """Render a conversation as the texts it is learned as: one, or one for each answer.

    The second where the template writes answers otherwise once others follow, or ends no turn: only the last answer
    then looks, and ends, as in use.

    Args:
        sample: whose parts are the messages.
        template: of the model.
        has_stop: whether the template itself ends each turn with a token for that.
    """
    answers = [index for index, part in enumerate(sample.parts) if part.role == "assistant"]
    if has_stop or len(answers) < 2:
        whole = render(sample, template)
        if not whole.problem or len(answers) < 2:
            return [whole]
    cut = [Sample(sample.row, sample.place, sample.parts[: index + 1]) for index in answers]
    return [render(part, template, only_last=True) for part in cut]


def render(sample: Sample, template: ChatTemplate, *, only_last: bool = False) -> Rendered:
    """Render a conversation.

    Args:
        sample: whose parts are the messages.
        template: of the model.
        only_last: of several answers, learn the last one.

    Raises:
        ModelError: the template fails.
    """
    messages = _build_messages(sample.parts)
    answers = [index for index, part in enumerate(sample.parts) if part.role == "assistant"]
    learned = answers[-1:] if only_last else answers
    spans: list[tuple[int, int]] = []
    contents: list[tuple[int, int]] = []
    try:
        text, marks = template.render_marked(messages) if template.has_marks else (template.render(messages), [])
        for index, part in enumerate(sample.parts):
            where, stop = (contents[-1][1] if contents else 0), len(text)
            if index in learned:
                marked = marks[answers.index(index)] if len(marks) == len(answers) else None
                found = _find_marked(text, marked, template) if template.has_marks else None
                found = found or _find_span(text, index, messages, template)
                if found is None:
                    return _refuse(index, part, "must look the same to the template before and after later turns")
                spans.append(found)
                where, stop = found
            elif part.role == "assistant":
                continue  # as it would be in use: templates leave out or shorten what was said before
            content = part.text.strip()
            start = text.find(content, where, stop)
            if start < 0:
                return _refuse(index, part, "must stand in what the template makes of the conversation; it doesn't")
            contents.append((start, start + len(content)))
    except RefusedError as error:
        return Rendered("", (), (), f"the model's chat template must accept the conversation; it says: {error}")
    return Rendered(text, tuple(spans), tuple(contents))


def _refuse(index: int, part: Part, problem: str) -> Rendered:
    return Rendered("", (), (), f"the model's chat template: messages[{index + 1}] ({part.role}) {problem}")


def _build_messages(parts: Sequence[Part]) -> list[dict[str, str]]:
    return [{"role": part.role, "content": part.text} for part in parts]


def _find_marked(text: str, mark: tuple[int, int] | None, template: ChatTemplate) -> tuple[int, int] | None:
    """Return the segment that the template marks; None where its marks are others than one for each answer."""
    if mark is None:
        return None
    # Some templates leave the end of the turn out of their marks; without it no model would learn to stop.
    end = find_end(template)
    return mark[0], mark[1] + len(end) if end and text.startswith(end, mark[1]) else mark[1]


def _find_span(
    text: str, index: int, messages: Sequence[dict[str, str]], template: ChatTemplate
) -> tuple[int, int] | None:
    """Return the segment of an answer that is learned; None where the template writes it otherwise later on."""
    history = template.render(messages[:index])
    asking = template.render(messages[:index], is_asking=True)
    answered = template.render(messages[: index + 1]).rstrip()
    # Not the length of `asking`: some templates open a block of reasoning there that an answer needn't have.
    start = _count_common(asking, answered)
    return (start, len(answered)) if start >= len(history) and text.startswith(answered) else None


def _count_common(first: str, second: str) -> int:
    """Count the characters both texts begin with."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((index for index, (left, right) in pairs if left != right), min(len(first), len(second)))


def describe(problem: str) -> str:
    """Say what to do about a conversation that can't be rendered."""
    if "(system)" in problem:
        return (
            "use a model whose chat template has a turn for the system, or put what it says into the first message of"
            " the user."
        )
    return "give the roles in the order the model's chat template knows, or use another model."

"""A conversation as the text the model sees, and which segments of it are learned.

What is learned of an answer is what the model would have to write: its text and the end of its turn. Where that begins
and ends is told by the template's own marks, or by what it writes before and after the answer. A template that writes
an answer otherwise once others follow has each answer learned in a text of its own, as in use.
"""

import functools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from finetune_api.errors import ModelError
from finetune_trainer.data.samples import Part, Sample
from finetune_trainer.model.chat_template import ChatTemplate, RefusedError
from finetune_trainer.tasks.instruction_tuning import answer_spans, content_search
from finetune_trainer.tasks.instruction_tuning.answer_spans import Span

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
    omitted: str = ""
    """Which turns the template leaves out, in words; what remains can be learned."""
    is_opened: bool = False
    """Whether the template, when it asks, writes more before an answer than stands before one here."""


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
    whole = render(sample, template) if has_stop or len(answers) < 2 else None
    if whole is not None and not (whole.problem or whole.omitted):
        return [whole]
    cut = [Sample(sample.row, sample.place, sample.parts[: index + 1]) for index in answers]
    rendered = [_render_last(part, template) for part in cut]
    is_no_better = any(item.problem or item.omitted for item in rendered)
    return [whole] if whole is not None and not whole.problem and is_no_better else rendered


def _render_last(sample: Sample, template: ChatTemplate) -> Rendered:
    """Render a conversation of which the last answer is learned: as the template writes it, else as it asks for it."""
    given = render(sample, template, only_last=True)
    if not (given.problem or given.omitted):
        return given
    asked = render_as_asked(sample, template)
    return given if asked.problem or asked.omitted else asked


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
    spans: dict[int, Span] = {}
    try:
        text, marks = template.render_marked(messages) if template.has_marks else (template.render(messages), [])
        end = find_end(template)
        for index in learned:
            mark = marks[answers.index(index)] if len(marks) == len(answers) else None
            found = answer_spans.find_marked(text, mark, messages[:index], template, end)
            found = found or answer_spans.find_span(text, index, messages, template, end)
            if found is None:
                return _refuse(index, sample, "must look the same to the template before and after later turns")
            spans[index] = found
    except RefusedError as error:
        return _refuse_all(error)
    outline = _outline(template, tuple(part.role for part in sample.parts), is_asking=False)
    return _place(text, spans, outline, sample)


def render_as_asked(sample: Sample, template: ChatTemplate) -> Rendered:
    """Render a conversation as the template asks for its last answer, and put that behind.

    Some write another prompt where an answer is given than where one is asked for: they leave out the system then, or
    the block of reasoning that they open.

    Args:
        sample: whose parts are the messages; the last one is of the assistant.
        template: of the model.

    Raises:
        ModelError: the template fails.
    """
    *before, answer = sample.parts
    try:
        asking = template.render(_build_messages(before), is_asking=True)
        lead, opened = _find_lead(template)
    except RefusedError as error:
        return _refuse_all(error)
    content = answer.text.strip()
    if opened:
        if not content.startswith(opened):
            return _refuse(len(before), sample, f"must begin with {opened}, as the template asks for it")
        content = content.removeprefix(opened).lstrip("\n")
    text = asking + lead + content + find_end(template)
    outline = _outline(template, tuple(part.role for part in before), is_asking=True)
    outline = replace(outline, frames=())  # the answer stands in none
    shown = Sample(sample.row, sample.place, (*before, Part("assistant", content)))
    return _place(text, {len(before): Span(len(asking), len(text))}, outline, shown)


@functools.lru_cache(maxsize=4)
def _find_lead(template: ChatTemplate) -> tuple[str, str]:
    """Return what the template writes between a question that is asked and its answer, and what it opens there."""
    messages = [{"role": "user", "content": _QUESTION}, {"role": "assistant", "content": _ANSWER}]
    asking, given = template.render(messages[:1], is_asking=True), template.render(messages)
    if given.startswith(asking):
        return given[len(asking) : given.rfind(_ANSWER)], ""
    common = next(index for index in range(len(asking) + 1) if not given.startswith(asking[: index + 1]))
    return "", asking[common:].strip()


def _place(text: str, spans: Mapping[int, Span], outline: "_Outline", sample: Sample) -> Rendered:
    """Find what the messages say in the text: between the template's own words, or by looking for it in its order."""
    said = [part.text for part in sample.parts]
    known = content_search.find_between(outline.frames, said, text) if outline.frames else None
    contents: list[tuple[int, int]] = []
    at = 0
    for index, part in enumerate(sample.parts):
        if index in outline.omitted or (known is None and part.role == "assistant" and index not in spans):
            continue  # an earlier answer is as it would be in use: templates leave out or shorten those
        # What the system says may be put into any turn of the user, the last one for instance, or before all.
        is_anywhere = part.role == "system"
        where, stop = (0 if is_anywhere else at), len(text)
        if index in spans:
            where, stop = spans[index].start, spans[index].end
        place = content_search.find(part.text, text, where, stop) if known is None else known[index]
        if place is None:
            return _refuse(index, sample, "must stand whole in what the template makes of the conversation; it doesn't")
        contents.append(place)
        at = at if is_anywhere else place[1]
    return Rendered(
        text,
        tuple((span.start, span.end) for span in spans.values()),
        tuple(contents),
        omitted=_describe_omitted(outline.omitted, sample),
        is_opened=any(span.is_opened for span in spans.values()),
    )


@dataclass(frozen=True, slots=True)
class _Outline:
    """What a template makes of every conversation of the same roles."""

    omitted: frozenset[int] = frozenset()
    """Turns but answers that it leaves out."""
    frames: tuple[str, ...] = ()
    """What it writes before each message and behind the last one; nothing where it puts them into another order."""


@functools.lru_cache(maxsize=1024)
def _outline(template: ChatTemplate, roles: tuple[str, ...], *, is_asking: bool) -> _Outline:
    parts = [Part(role, f"Message {index}.") for index, role in enumerate(roles)]
    try:
        text = template.render(_build_messages(parts), is_asking=is_asking)
    except RefusedError:
        return _Outline()  # it minds what is said in them
    omitted = (index for index, part in enumerate(parts) if part.role != "assistant" and part.text not in text)
    frames, rest = [], text
    for part in parts:
        before, found, rest = rest.partition(part.text)
        if not found:
            return _Outline(frozenset(omitted))
        frames.append(before)
    return _Outline(frozenset(omitted), (*frames, rest))


def _describe_omitted(omitted: Collection[int], sample: Sample) -> str:
    if not omitted:
        return ""
    turns = ", ".join(f"messages[{index + 1}] ({sample.parts[index].role})" for index in sorted(omitted))
    return f"the model's chat template: {turns} must stand in what the template makes of the conversation; it doesn't"


def _refuse(index: int, sample: Sample, problem: str) -> Rendered:
    role = sample.parts[index].role
    return Rendered("", (), (), f"the model's chat template: messages[{index + 1}] ({role}) {problem}")


def _refuse_all(error: RefusedError) -> Rendered:
    return Rendered("", (), (), f"the model's chat template must accept the conversation; it says: {error}")


def _build_messages(parts: Sequence[Part]) -> list[dict[str, str]]:
    return [{"role": part.role, "content": part.text} for part in parts]


def describe(problem: str) -> str:
    """Say what to do about a conversation that can't be rendered."""
    if "must stand whole" in problem:
        return (
            "leave out of it what the template takes away, such as reasoning before </think>, or use a model whose chat"
            " template keeps it."
        )
    if "(system)" in problem or "system role" in problem.lower():
        return (
            "use a model whose chat template has a turn for the system, or put what it says into the first message of"
            " the user."
        )
    return "give the roles in the order the model's chat template knows, or use another model."


def describe_omitted(omitted: str) -> str:
    """Say what to do about turns that the template leaves out."""
    role = "system" if "(system)" in omitted else "role"
    return (
        f"use a model whose chat template has a turn for the {role}, put what it says into a message of the user, or"
        " set spec.training.omittedTurns to Warn, which learns the conversation without it."
    )

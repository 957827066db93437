"""Where the texts of messages stand in what a chat template makes of a conversation.

Templates trim them, write them as JSON strings, or set other blanks around the parts of them they know, such as a block
of reasoning. Whatever else is changed isn't found. What a short text says may stand in the template's own words too:
where those are known, a text is looked for between them and nowhere else.
"""

import json
from collections.abc import Sequence

Place = tuple[int, int]
"""First and last + 1 character."""


def _build_forms(content: str) -> tuple[str, ...]:
    stripped = content.strip()
    return content, stripped, json.dumps(content, ensure_ascii=False)[1:-1]


def find_between(frames: Sequence[str], contents: Sequence[str], text: str) -> list[Place] | None:
    """Return where each text stands if it stands between what the template writes around it; else None.

    Args:
        frames: what stands before each text, and behind the last one.
        contents: of the messages.
        text: of the conversation.
    """
    places: list[Place] = []
    at = 0
    for before, behind, content in zip(frames[:-1], frames[1:], contents, strict=True):
        if not text.startswith(before, at):
            return None
        at += len(before)
        is_last = len(places) == len(contents) - 1
        fitting = [form for form in _build_forms(content) if text.startswith(form + behind, at)]
        fitting = [form for form in fitting if not is_last or at + len(form) + len(behind) == len(text)]
        if not fitting:
            return None
        places.append((at, at + len(fitting[0])))
        at += len(fitting[0])
    return places


def find(content: str, text: str, start: int, stop: int) -> Place | None:
    """Return where a message's text stands first between two characters; None where it isn't there."""
    for form in _build_forms(content)[1:]:
        at = text.find(form, start, stop)
        if at >= 0:
            return at, at + len(form)
    return _find_but_for_blanks(content, text, start, stop)


def find_last(content: str, text: str, start: int, stop: int) -> Place | None:
    """Return where a message's text stands last between two characters; None where it isn't there."""
    for form in _build_forms(content)[1:]:
        at = text.rfind(form, start, stop)
        if at >= 0:
            return at, at + len(form)
    return None


def _find_but_for_blanks(content: str, text: str, start: int, stop: int) -> Place | None:
    places = [index for index in range(start, stop) if not text[index].isspace()]
    squeezed = "".join(content.split())
    at = "".join(text[index] for index in places).find(squeezed)
    return (places[at], places[at + len(squeezed) - 1] + 1) if at >= 0 else None

"""Where the text of a message stands in what a chat template makes of a conversation.

Templates trim it, write it as a JSON string, or set other blanks around the parts of it they know, such as a block of
reasoning. Whatever else is changed isn't found.
"""

import json


def find(content: str, text: str, start: int, stop: int) -> tuple[int, int] | None:
    """Return the first and last + 1 character of a message's text between two places; None where it isn't there."""
    stripped = content.strip()
    for form in (stripped, json.dumps(stripped, ensure_ascii=False)[1:-1]):
        at = text.find(form, start, stop)
        if at >= 0:
            return at, at + len(form)
    return _find_but_for_blanks(stripped, text, start, stop)


def _find_but_for_blanks(content: str, text: str, start: int, stop: int) -> tuple[int, int] | None:
    places = [index for index in range(start, stop) if not text[index].isspace()]
    squeezed = "".join(content.split())
    at = "".join(text[index] for index in places).find(squeezed)
    return (places[at], places[at + len(squeezed) - 1] + 1) if at >= 0 else None

"""How errors, warnings and logs put things into words: values shown, names suggested, lists joined, texts cut.

Used by everybody who writes a sentence for a user, so that the same value looks the same wherever it is shown.
Imports nothing of ours.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence

MAX_SHOWN = 80
"""Longest part of a value shown in an error; a choice."""
MAX_LISTED = 12
"""Most names listed in one sentence; a choice."""
ELLIPSIS = "…"


def cut(text: str, limit: int = MAX_SHOWN) -> str:
    """Cut a text to `limit` characters, marking the cut."""
    return text if len(text) <= limit else text[: limit - 1] + ELLIPSIS


def escape_controls(text: str, keep: str = "") -> str:
    """Write what can't be seen as an escape: control characters, ESC, line breaks, bidirectional marks.

    Args:
        keep: characters left as they are, a line break where several lines are meant.
    """
    return "".join(char if char.isprintable() or char in keep else _escape(char) for char in text)


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode()


def quote(text: str) -> str:
    """Put a text into quotes, with everything escaped that would end them or can't be seen."""
    return '"' + escape_controls(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def show_value(value: object) -> str:
    """Write a value as JSON would, cut to `MAX_SHOWN`; a plain word without its quotes, a text with blanks in them."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return cut(str(value))
    if not isinstance(value, str):
        return {"dict": "an object", "list": "a list"}.get(type(value).__name__, type(value).__name__)
    is_plain = bool(value) and value.isprintable() and not any(char.isspace() or char == '"' for char in value)
    shown = cut(value)
    return shown if is_plain else quote(shown)


def join_names(names: Iterable[object], limit: int = MAX_LISTED, last: str = ", ") -> str:
    """List names, at most `limit` of them, the others counted: `a, b and 7 more`.

    Args:
        last: what stands before the last one where all are listed, ` and ` or ` or ` for instance.
    """
    texts = [str(name) for name in names]
    if len(texts) > limit:
        return f"{', '.join(texts[:limit])} and {len(texts) - limit:,} more"
    if len(texts) < 2:
        return "".join(texts)
    return f"{', '.join(texts[:-1])}{last}{texts[-1]}"


def show_names(names: Iterable[str], limit: int = MAX_LISTED) -> str:
    """List names that users gave, each shown as a value."""
    return join_names((show_value(name) for name in names), limit)


def show_error(error: BaseException) -> str:
    """Write a library's words as one line of a sentence."""
    return cut(" ".join(escape_controls(str(error), keep="\n\t").split()), 300)


def find_nearest(wrong: str, known: Iterable[str], aliases: Mapping[str, str] | None = None) -> str | None:
    """Return the known name that was probably meant: by an alias, else by likeness without regard to case.

    Args:
        wrong: the name that isn't known.
        known: the names that are.
        aliases: other tools' names and abbreviations, folded by `fold_name`; counted only where they lead to `known`.
    """
    names = list(known)
    meant = (aliases or {}).get(fold_name(wrong))
    if meant in names:
        return meant
    by_folded = {fold_name(name): name for name in names}
    nearest = difflib.get_close_matches(fold_name(wrong), list(by_folded), n=1)
    return by_folded[nearest[0]] if nearest else None


def suggest(wrong: str, known: Iterable[str], aliases: Mapping[str, str] | None = None) -> str:
    """Return `; did you mean …?` with the nearest known name, or nothing."""
    nearest = find_nearest(wrong, known, aliases)
    return f"; did you mean {nearest}?" if nearest else ""


def fold_name(name: str) -> str:
    """Write a name without case and without what tools put between words: `num_train_epochs` is `numTrainEpochs`."""
    return "".join(char for char in name.lower() if char not in "_- .")


def keep_first(texts: Sequence[str], limit: int) -> list[str]:
    """Keep the first of the different texts, at most `limit`; what is left out is counted in the last one."""
    different = list(dict.fromkeys(texts))
    if len(different) <= limit:
        return different
    left = len(different) - limit + 1
    return [*different[: limit - 1], f"{left:,} more warnings are left out"]

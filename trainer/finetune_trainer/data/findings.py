"""What is wrong with rows, gathered with file and line, and foreign values as a message may hold them."""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from finetune_api.errors import DataError

MAX_FINDINGS = 100
"""Findings that are kept; all are counted."""

MAX_NOTES = 16
"""Notes that are kept (a choice): as many as a status shows; a note is about a file or a column, not about a row."""

_MAX_REMEDIES = 3
_SHOWN_FINDINGS = 5
_SHOWN_CHARACTERS = 80
_SHOWN_NAMES = 20


class BadRowsError(DataError):
    """Rows that can't be used; the message shows the first ones, `findings` holds up to `MAX_FINDINGS`."""

    def __init__(self, findings: list[str], total: int, remedies: Sequence[str] = ()) -> None:
        shown = "; ".join(findings[:_SHOWN_FINDINGS])
        more = f"; {total} errors in all" if total > _SHOWN_FINDINGS else ""
        super().__init__(shown + more, " ".join(remedies) or "correct the rows and start the job again.")
        self.findings = findings
        self.total = total


@dataclass(slots=True)
class Findings:
    """What is wrong with rows, kept until all of them were read."""

    kept: list[str] = field(default_factory=list)
    total: int = 0
    remedies: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What doesn't stop the run and must still be said: a file that was read otherwise than its name tells."""

    def add(self, place: str, message: str, remedy: str = "") -> None:
        """Note one error; beyond `MAX_FINDINGS` it is only counted.

        Args:
            place: file and line.
            message: what must hold, and what was found.
            remedy: what to do, where that isn't simply to correct the row.
        """
        self.total += 1
        if remedy and remedy not in self.remedies and len(self.remedies) < _MAX_REMEDIES:
            self.remedies.append(remedy)
        if len(self.kept) < MAX_FINDINGS:
            self.kept.append(f"{place}: {message}")

    def note(self, message: str) -> None:
        """Note what the user should know; said once, however often it is found."""
        if message not in self.notes and len(self.notes) < MAX_NOTES:
            self.notes.append(message)

    def raise_if_any(self) -> None:
        """End the stage when there was an error.

        Raises:
            BadRowsError: with all that was found.
        """
        if self.total:
            raise BadRowsError(self.kept, self.total, self.remedies)


def show_value(value: object) -> str:
    """Return a foreign value as a message may hold it: on one line, encodable, and not longer than a name should be."""
    text = str(value)[:_SHOWN_CHARACTERS]
    shown = "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)
    is_whole = len(shown) <= _SHOWN_CHARACTERS and len(str(value)) <= _SHOWN_CHARACTERS
    return shown if is_whole else shown[: _SHOWN_CHARACTERS - 1] + "…"


def show_names(names: Sequence[str]) -> str:
    """Return foreign names as a message may hold them: the first ones, and whether there are more."""
    more = ["…"] if len(names) > _SHOWN_NAMES else []
    return ", ".join([*map(show_value, names[:_SHOWN_NAMES]), *more])


def shorten(error: Exception) -> str:
    """Return a library's words as one line of a message."""
    return " ".join(str(error).split())[:300]


def suggest(wrong: str, known: Iterable[str]) -> str:
    """Return `; did you mean …?` with the nearest known name, or nothing."""
    nearest = difflib.get_close_matches(wrong, list(known), n=1)
    return f"; did you mean {show_value(nearest[0])}?" if nearest else ""

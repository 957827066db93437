"""What is wrong with rows, gathered with file and line until all of them were read, and what else must be said."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from finetune_api.errors import DataError

MAX_FINDINGS = 100
"""Findings that are kept; all are counted."""

MAX_NOTES = 16
"""Notes that are kept (a choice): as many as a status shows; a note is about a file or a column, not about a row."""

_MAX_REMEDIES = 3
_SHOWN_FINDINGS = 5


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

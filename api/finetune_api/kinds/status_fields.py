"""Parts of every status: texts that are bounded, times as Kubernetes writes them.

Nothing here reads a clock.
"""

import re
from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from finetune_api import wording

MAX_MESSAGE_LENGTH = 1024
"""Longest message kept in a condition, a failure or an Event; Events allow 1,024 characters."""

_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})")


def _check_time(text: str) -> str:
    """Refuse what the API server would: a pod may have written it."""
    if not _TIME.fullmatch(text):
        raise PydanticCustomError("time", "must be a time such as 2026-01-31T12:00:00Z")
    # Of the right form, and yet there may be no such day.
    datetime.fromisoformat(text)
    return text


Message = Annotated[str, Field(max_length=MAX_MESSAGE_LENGTH)]
ReasonText = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z]([A-Za-z0-9_]*[A-Za-z0-9])?$")]
Time = Annotated[str, Field(max_length=40, json_schema_extra={"format": "date-time"}), AfterValidator(_check_time)]


def build_time(moment: datetime) -> str:
    """Write a moment as Kubernetes does: RFC 3339, UTC, whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: str) -> datetime:
    """Read an RFC 3339 time.

    Raises:
        ValueError: the text is no RFC 3339 time.
    """
    return datetime.fromisoformat(text)


def build_message(text: str) -> str:
    """Cut a text to what conditions and Events may hold, marking the cut."""
    return wording.cut(text, MAX_MESSAGE_LENGTH)

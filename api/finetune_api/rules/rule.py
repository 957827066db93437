"""What a rule is, and the small words rules are written with."""

from collections.abc import Callable
from dataclasses import dataclass

from finetune_api import wording
from finetune_api.kinds.finetunejob.spec import FineTuneJobSpec


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: it holds when `find` returns None, else `find` gives the value as it is shown.

    Attributes:
        path: the field to blame, below `spec`, as the API spells it.
        cel: the same rule in CEL, on `spec` as `self`.
        message: `must …; what to do`.
        reason: Kubernetes' reason for the refusal.
    """

    path: str
    cel: str
    message: str
    find: Callable[[FineTuneJobSpec], str | None]
    reason: str = "FieldValueInvalid"


def when(is_broken: bool, value: object) -> str | None:
    """Return the value to show where the rule is broken."""
    return wording.show_value(value) if is_broken else None


def build_list(names: list[str]) -> str:
    """Write a list of names in CEL."""
    return "[" + ", ".join(f"'{name}'" for name in names) + "]"


def build_match(field: str, pattern: str) -> str:
    """Write in CEL that a field matches a pattern; the text is raw, so that backslashes reach the expression."""
    return f"{field}.matches(r'{pattern}')"

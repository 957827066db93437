"""Single values of a row, read with what is wrong noted."""

import math

from finetune_trainer.data.findings import Findings
from finetune_trainer.data.readers import Record


def read_text(record: Record, column: str, findings: Findings) -> str | None:
    """Return a text that isn't empty, or None after noting what is wrong with it."""
    value = record.values.get(column)
    problem = "is missing; it must be a text" if value is None else check_text(value)
    if problem is not None or not isinstance(value, str):
        findings.add(record.place, f"{column} {problem}")
        return None
    return value


def read_optional_text(record: Record, column: str, findings: Findings) -> str:
    """Return a text that may be missing or empty; empty too after noting what is wrong with it."""
    value = record.values.get(column)
    if value is None or (isinstance(value, str) and not value.strip()):
        return ""
    if problem := check_text(value):
        findings.add(record.place, f"{column} {problem}")
    return value if isinstance(value, str) else ""


def check_text(value: object) -> str | None:
    """Return what is wrong with a value that should be a text with something in it, or None."""
    if not isinstance(value, str):
        return f"must be a text, not {name_kind(value)}"
    if not value.strip():
        return "must not be empty"
    if "\0" in value:
        return f"must not hold zeros (NUL); character {value.index(chr(0)) + 1} is one"
    try:
        value.encode()
    except UnicodeEncodeError as error:
        # JSON can spell half of a surrogate pair; no tokenizer takes it.
        return f"must be valid Unicode; character {error.start + 1} is half of a pair"
    return None


def name_kind(value: object) -> str:
    """Name the kind of a value for a message; what stands for no number by its own name."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity"
    return type(value).__name__

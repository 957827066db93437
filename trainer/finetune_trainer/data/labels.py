"""The labels of a set of rows: read from a column, put in order, and compared with those of the training rows.

One rule for all formats, because the same table comes as CSV, JSON or parquet: whole numbers are labels by their value
(`1`, `1.0`), booleans are `true` and `false` in whatever case they are written, other texts are labels as they are.
"""

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

from finetune_api import wording
from finetune_api.errors import DataError
from finetune_trainer.data import values
from finetune_trainer.data.findings import Findings
from finetune_trainer.data.readers import Record

if TYPE_CHECKING:
    from finetune_trainer.data.samples import Sample

MAX_LABELS = 1000
"""Most different labels (a choice): more mean that the wrong column was taken."""
MAX_LABEL_CHARACTERS = 256
"""Longest label (a choice): a longer one is a text."""

_WHOLE = re.compile(r"([-+]?\d+)\.0+")
_FRACTION = re.compile(r"[-+]?\d*[.,]\d+([eE][-+]?\d+)?")
_MISSING = frozenset({"nan", "null", "none", "n/a", "na", "<na>", "#n/a", "nil", "undefined", "-", "?"})
_MANY_LABELS = 0.5
"""Share of labels to rows above which a column is probably no column of labels (a choice)."""
_FEW_ROWS = 10
_SHOWN_GROUPS = 3
_ROUND = "round such labels, or write each class as a word."


def read_label(record: Record, column: str, findings: Findings) -> str | None:
    """Return a label as text, or None after noting what is wrong with it."""
    value = record.values.get(column)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float | Decimal):
        return _read_number(value, record, column, findings)
    if value is not None and not isinstance(value, str):
        findings.add(record.place, f"{column} must be a text or a whole number, not {values.name_kind(value)}")
        return None
    text = values.read_text(record, column, findings)
    return None if text is None else _read_text(text.strip(), record, column, findings)


def _read_number(value: int | float | Decimal, record: Record, column: str, findings: Findings) -> str | None:
    if isinstance(value, int):
        return _read_text(str(value), record, column, findings)
    if math.isfinite(value) and value == int(value):
        return _read_text(str(int(value)), record, column, findings)
    shown = wording.cut(str(value)) if math.isfinite(value) else values.name_kind(float(value))
    findings.add(record.place, f"{column} ({shown}) must be a text or a whole number", _ROUND)
    return None


def _read_text(text: str, record: Record, column: str, findings: Findings) -> str | None:
    if len(text) > MAX_LABEL_CHARACTERS:
        findings.add(
            record.place,
            f"{column} ({wording.show_value(text)}) must have at most {MAX_LABEL_CHARACTERS} characters",
            "name the column of the labels in spec.data[0].columns.label.",
        )
        return None
    if match := _WHOLE.fullmatch(text):
        return str(int(match[1]))
    if _FRACTION.fullmatch(text):
        findings.add(record.place, f"{column} ({text}) must be a text or a whole number", _ROUND)
        return None
    return text.lower() if text.lower() in ("true", "false") else text


def check_labels(counts: Mapping[str, int]) -> list[str]:
    """Return warnings about labels that are probably not meant as they are.

    Args:
        counts: training rows of each label.
    """
    num_rows = sum(counts.values())
    warnings = [
        f"label {wording.show_value(name)} ({count} rows) looks like a missing value; it is trained as a class"
        for name, count in counts.items()
        if name.lower() in _MISSING
    ]
    groups: dict[str, list[str]] = {}
    for name in counts:
        groups.setdefault(_fold(name), []).append(name)
    alike = [
        " and ".join(f"{wording.show_value(name)} ({counts[name]} rows)" for name in names)
        for names in groups.values()
        if len(names) > 1
    ]
    if alike:
        more = f", and {len(alike) - _SHOWN_GROUPS} more" if len(alike) > _SHOWN_GROUPS else ""
        warnings.append(
            "labels that differ only in case, blanks or the like are trained as different classes:"
            f" {'; '.join(alike[:_SHOWN_GROUPS])}{more}"
        )
    if num_rows >= _FEW_ROWS and len(counts) > _MANY_LABELS * num_rows:
        warnings.append(
            f"{num_rows} training rows have {len(counts)} different labels: spec.data[0].columns.label may name another"
            " column than that of the labels"
        )
    return warnings


def _fold(name: str) -> str:
    return re.sub(r"[\s_\-]+", " ", unicodedata.normalize("NFKC", name)).strip().casefold()


def sort_labels(names: Sequence[str], count: int, source: str) -> list[str]:
    """Return the labels in the order of their ids: by number where all are whole numbers, else by letters.

    Args:
        names: of the labels, at most `MAX_LABELS`.
        count: how many there are.
        source: file name for the message.

    Raises:
        DataError: there is only one label, or so many that the column must be a wrong one.
    """
    if count < 2:
        raise DataError(
            f"{source} must have at least two different labels; every row has {wording.show_names(names)}",
            "add rows of another class, or correct the label column.",
        )
    if count > MAX_LABELS:
        raise DataError(
            f"{source} must have at most {MAX_LABELS} different labels; it has {count}",
            "name the label column in spec.data[0].columns.label.",
        )
    try:
        return sorted(names, key=int)
    except ValueError:
        return sorted(names)


def add_unknown_label(sample: "Sample", label: str, labels: Sequence[str], findings: Findings) -> None:
    """Note a label of a sample that the training rows don't have."""
    findings.add(
        sample.place,
        f"label ({wording.show_value(label)}) must be one of the training rows' labels"
        f" {wording.show_names(labels)}{wording.suggest(label, labels)}",
    )

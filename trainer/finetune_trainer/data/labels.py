"""The labels of a set of rows: read from a column, put in order, and compared with those of the training rows."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from finetune_api.errors import DataError
from finetune_trainer.data import findings as wording
from finetune_trainer.data import values
from finetune_trainer.data.findings import Findings
from finetune_trainer.data.readers import Record

if TYPE_CHECKING:
    from finetune_trainer.data.samples import Sample

MAX_LABELS = 1000
"""Most different labels (a choice): more mean that the wrong column was taken."""


def read_label(record: Record, column: str, findings: Findings) -> str | None:
    """Return a label, a text or a whole number, as text; or None after noting what is wrong with it."""
    value = record.values.get(column)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if value is not None and not isinstance(value, str):
        findings.add(record.place, f"{column} must be a text or a whole number, not {type(value).__name__}")
        return None
    text = values.read_text(record, column, findings)
    return None if text is None else text.strip()


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

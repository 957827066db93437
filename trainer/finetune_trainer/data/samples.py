"""Rows become samples, and samples tokens and labels.

What the tasks share stands here: finding the columns, reading single values, the label set. What a role means and which
tokens carry a label is decided by the task.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from finetune_api.errors import DataError
from finetune_trainer.data import readers
from finetune_trainer.data.readers import Findings, Record

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100
"""Label of a token that is not learned: PyTorch's default for `ignore_index`."""
MAX_LABELS = 1000
"""Most different labels (a choice): more mean that the wrong column was taken."""


@dataclass(frozen=True, slots=True)
class Shape:
    """One way a task's rows may look: its roles, each with the column names it is recognised by, best first."""

    required: Mapping[str, tuple[str, ...]]
    optional: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def roles(self) -> set[str]:
        return {*self.required, *self.optional}


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a sample: its role (`text`, `user`, `assistant` …) and its text."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class Sample:
    """A checked row."""

    row: int
    """Index in its source, from 0."""
    place: str
    """File and line, for messages."""
    parts: tuple[Part, ...]
    label: str = ""


@dataclass(frozen=True, slots=True)
class TokenizedRow:
    """Tokens of one sample; `label` or `labels` is set, as the task has it."""

    input_ids: list[int]
    label: int | None = None
    labels: list[int] | None = None
    token_type_ids: list[int] | None = None
    is_truncated: bool = False


def encode_texts(
    tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str], *, add_special_tokens: bool = True
) -> list[list[int]]:
    """Return the whole texts' token ids, as calling the tokenizer would.

    That would also find the place of each token in its text and wrap every answer: a fifth of the time (measured:
    SmolLM2, tokenizers 0.23).
    """
    backend = tokenizer.backend_tokenizer
    # Only changed where they are on: several threads use it.
    if backend.truncation is not None:
        backend.no_truncation()
    if backend.padding is not None:
        backend.no_padding()
    return [item.ids for item in backend.encode_batch_fast(texts, add_special_tokens=add_special_tokens)]


def find_columns(
    found: Sequence[str], chosen: Mapping[str, str], shapes: Sequence[Shape], source: str
) -> dict[str, str]:
    """Map the task's roles to columns: those the user chose, the others by the names they usually have.

    Args:
        found: columns there are.
        chosen: `spec.data[0].columns`.
        shapes: of the task, the preferred one first.
        source: file name for the message.

    Raises:
        DataError: a chosen column isn't there, or no shape of the task can be made of the columns.
    """
    missing = {role: column for role, column in chosen.items() if column not in found}
    if missing:
        raise DataError(
            "; ".join(
                f"spec.data[0].columns.{role} ({column}) must be a column of {source}, which has"
                f" {readers.show_names(found)}{suggest(column, found)}"
                for role, column in missing.items()
            ),
            "correct the column's name.",
        )
    for shape in shapes:
        if set(chosen) <= shape.roles and (columns := _match_shape(found, chosen, shape)) is not None:
            return columns
    wanted = " or ".join(", ".join(shape.required) for shape in shapes)
    raise DataError(
        f"{source} must have columns for {wanted}; it has {readers.show_names(found)}",
        "name the columns in spec.data[0].columns.",
    )


def _match_shape(found: Sequence[str], chosen: Mapping[str, str], shape: Shape) -> dict[str, str] | None:
    columns = dict(chosen)
    # Whoever names columns decides about the optional ones too: none is added behind their back.
    detected = shape.required if chosen else {**shape.required, **shape.optional}
    by_name = {name.lower(): name for name in reversed(found) if name not in chosen.values()}
    for role, aliases in detected.items():
        if role not in columns and (name := next((by_name[alias] for alias in aliases if alias in by_name), None)):
            columns[role] = name
    return columns if set(shape.required) <= set(columns) else None


def suggest(wrong: str, known: Iterable[str]) -> str:
    """Return `; did you mean …?` with the nearest known name, or nothing."""
    nearest = difflib.get_close_matches(wrong, list(known), n=1)
    return f"; did you mean {readers.show_value(nearest[0])}?" if nearest else ""


def read_text(record: Record, column: str, findings: Findings) -> str | None:
    """Return a text that isn't empty, or None after noting what is wrong with it."""
    value = record.values.get(column)
    problem = "is missing; it must be a text" if value is None else check_text(value)
    if problem is not None or not isinstance(value, str):
        findings.add(record.place, f"{column} {problem}")
        return None
    return value


def check_text(value: object) -> str | None:
    """Return what is wrong with a value that should be a text with something in it, or None."""
    if not isinstance(value, str):
        return f"must be a text, not {type(value).__name__}"
    if not value.strip():
        return "must not be empty"
    try:
        value.encode()
    except UnicodeEncodeError as error:
        # JSON can spell half of a surrogate pair; no tokenizer takes it.
        return f"must be valid Unicode; character {error.start + 1} is half of a pair"
    return None


def read_label(record: Record, column: str, findings: Findings) -> str | None:
    """Return a label, a text or a whole number, as text; or None after noting what is wrong with it."""
    value = record.values.get(column)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if value is not None and not isinstance(value, str):
        findings.add(record.place, f"{column} must be a text or a whole number, not {type(value).__name__}")
        return None
    text = read_text(record, column, findings)
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
            f"{source} must have at least two different labels; every row has {readers.show_names(names)}",
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


def add_unknown_label(sample: Sample, labels: Sequence[str], findings: Findings) -> None:
    """Note a sample whose label the training rows don't have."""
    findings.add(
        sample.place,
        f"label ({readers.show_value(sample.label)}) must be one of the training rows' labels"
        f" {readers.show_names(labels)}{suggest(sample.label, labels)}",
    )

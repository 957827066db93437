"""Rows become samples, samples become tokens and labels, and those a parquet file that the train stage reads.

What the tasks share stands here: finding the columns, reading single values, the label set, the split, the file. What a
role means and which tokens carry a label is decided by the task.

Shape of a prepared file, one row per sample: `row` int64, the row's index in its source from 0; `input_ids`
list<int32>, the T tokens of the sample, not padded; `label` int32, or `labels` list<int32> of the same length T in
which -100 marks tokens that are not learned; `token_type_ids` list<int32> where the sample is a pair of texts.
"""

import difflib
import hashlib
import random
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow
import pyarrow.parquet

from finetune_api.errors import DataError
from finetune_trainer import records, stopping
from finetune_trainer.records import Findings, Record

IGNORED = -100
"""Label of a token that is not learned: PyTorch's default for `ignore_index`."""
MAX_LABELS = 1000
"""Most different labels (a choice): more mean that the wrong column was taken."""
_BATCH_ROWS = 1000
"""Samples per call of the tokenizer and row group of the file (a choice)."""


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


@dataclass(slots=True)
class TokenCounts:
    """What tokenizing a split came to."""

    lengths: "array[int]"
    """Tokens of each row after truncation."""
    num_truncated: int
    num_learned: int
    """Tokens that carry a label; rows, where rows do."""

    @property
    def num_tokens(self) -> int:
        return sum(self.lengths)


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
                f" {records.show_names(found)}{suggest(column, found)}"
                for role, column in missing.items()
            ),
            "correct the column's name.",
        )
    for shape in shapes:
        if set(chosen) <= shape.roles and (columns := _match_shape(found, chosen, shape)) is not None:
            return columns
    wanted = " or ".join(", ".join(shape.required) for shape in shapes)
    raise DataError(
        f"{source} must have columns for {wanted}; it has {records.show_names(found)}",
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
    return f"; did you mean {records.show_value(nearest[0])}?" if nearest else ""


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


def build_label_set(samples: Iterable[Sample], source: str) -> list[str]:
    """Return the labels in the order of their ids: by number where all are whole numbers, else by letters.

    Raises:
        DataError: there is only one label, or so many that the column must be a wrong one.
    """
    labels = {sample.label for sample in samples}
    if len(labels) < 2:
        raise DataError(
            f"{source} must have at least two different labels; every row has {records.show_names(list(labels))}",
            "add rows of another class, or correct the label column.",
        )
    if len(labels) > MAX_LABELS:
        raise DataError(
            f"{source} must have at most {MAX_LABELS} different labels; it has {len(labels)}",
            "name the label column in spec.data[0].columns.label.",
        )
    try:
        return sorted(labels, key=int)
    except ValueError:
        return sorted(labels)


def check_labels(samples: Iterable[Sample], labels: Sequence[str], findings: Findings) -> None:
    """Note every sample whose label the training rows don't have."""
    known = set(labels)
    shown = records.show_names(labels)
    for sample in samples:
        if sample.label not in known:
            findings.add(
                sample.place,
                f"label ({records.show_value(sample.label)}) must be one of the training rows' labels {shown}"
                f"{suggest(sample.label, labels)}",
            )


def build_text_key(sample: Sample) -> bytes:
    """Return what tells equal samples: a digest of the texts, without the label, blanks and case made equal."""
    digest = hashlib.sha256()
    for part in sample.parts:
        digest.update(" ".join(part.text.casefold().split()).encode("utf-8", "surrogatepass"))
        digest.update(b"\x00")
    return digest.digest()[:16]


def split_samples(
    samples: Sequence[Sample], fractions: Mapping[str, float], *, seed: int, stratify: bool
) -> dict[str, list[Sample]]:
    """Hold out shares of the samples; the rest is `train`. The same samples and seed give the same split.

    Samples of the same text stay on one side. With `stratify` each label is split on its own, rounded so that the
    shares of the whole come out.

    Args:
        samples: in the order of their source.
        fractions: share of each split to hold out, such as `{"validation": 0.1}`.
        seed: of the order.
        stratify: split by label.

    Raises:
        DataError: a split would be left without a row.
    """
    groups: dict[bytes, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(build_text_key(sample), []).append(sample)
    strata: dict[str, list[list[Sample]]] = {}
    for group in groups.values():
        strata.setdefault(group[0].label if stratify else "", []).append(group)
    splits: dict[str, list[Sample]] = {"train": [], **{name: [] for name in fractions}}
    order = random.Random(seed)  # noqa: S311 - a split must be repeatable, not secret
    carried = dict.fromkeys(fractions, 0.0)
    for label in sorted(strata):
        members = strata[label]
        order.shuffle(members)
        num_rows = sum(map(len, members))
        for name, fraction in fractions.items():
            # What rounding took from one label is given back with the next.
            wanted = fraction * num_rows + carried[name]
            taken, members = _take_groups(members, wanted)
            splits[name] += taken
            carried[name] = wanted - len(taken)
        splits["train"] += [sample for group in members for sample in group]
    for name, members_of_split in splits.items():
        if not members_of_split:
            blamed = name if name in fractions else next(iter(fractions))
            raise DataError(
                f"spec.split.{blamed} ({fractions[blamed]:g}) must leave a row in every part; of {len(samples)} rows,"
                f" {len(groups)} of them different, {name} would get 0 rows",
                "give more rows, another share, or files of their own for validation and test.",
            )
        members_of_split.sort(key=lambda sample: sample.row)
    return splits


def _take_groups(groups: Sequence[list[Sample]], wanted: float) -> tuple[list[Sample], list[list[Sample]]]:
    """Take whole groups up to the rounded number of samples; return what was taken and the groups that stay."""
    taken: list[Sample] = []
    kept: list[list[Sample]] = []
    for group in groups:
        if len(taken) + len(group) <= wanted + 0.5:
            taken += group
        else:
            kept.append(group)
    return taken, kept


def save_rows(
    path: Path,
    samples: Sequence[Sample],
    tokenize: Callable[[Sequence[Sample]], list[TokenizedRow]],
    schema: pyarrow.Schema,
    findings: Findings,
) -> TokenCounts:
    """Tokenize samples in batches and write them as parquet, in their order; a split without samples has a file too.

    Args:
        path: file to write.
        samples: of one split.
        tokenize: turns a batch of samples into as many rows.
        schema: from `build_schema`.
        findings: takes the samples of which no token would be learned.
    """
    counts = TokenCounts(array("I"), 0, 0)
    with pyarrow.parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        for start in range(0, len(samples), _BATCH_ROWS):
            stopping.check(f"the tokenizing of {path.name} at row {start}")
            batch = samples[start : start + _BATCH_ROWS]
            rows = tokenize(batch)
            for sample, row in zip(batch, rows, strict=True):
                _count_row(sample, row, counts, findings)
            writer.write_table(_build_table(batch, rows, schema))
    return counts


def _count_row(sample: Sample, row: TokenizedRow, counts: TokenCounts, findings: Findings) -> None:
    learned = 1 if row.labels is None else len(row.labels) - row.labels.count(IGNORED)
    if not learned:
        findings.add(
            sample.place,
            f"must keep a token to learn within spec.training.maxLength; all {len(row.input_ids)} tokens that were kept"
            " belong to the prompt",
        )
    counts.lengths.append(len(row.input_ids))
    counts.num_truncated += row.is_truncated
    counts.num_learned += learned


def build_schema(*, is_labelled: bool, is_pair: bool) -> pyarrow.Schema:
    """Return the columns of a prepared file, in their order."""
    tokens = pyarrow.list_(pyarrow.int32())
    target = ("label", pyarrow.int32()) if is_labelled else ("labels", tokens)
    columns = [("row", pyarrow.int64()), ("input_ids", tokens), target]
    return pyarrow.schema([*columns, ("token_type_ids", tokens)] if is_pair else columns)


def _build_table(samples: Sequence[Sample], rows: Sequence[TokenizedRow], schema: pyarrow.Schema) -> pyarrow.Table:
    values = {"row": [sample.row for sample in samples]}
    for name in schema.names[1:]:
        values[name] = [getattr(row, name) for row in rows]
    return pyarrow.table(values, schema=schema)

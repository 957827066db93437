"""Which column of a file plays which role of a task: as the user named them, or by the names they usually have."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from finetune_api import wording
from finetune_api.errors import DataError

_LONG_NAME = 64
_NUMBER = re.compile(r"[-+]?\d+([.,]\d+)?")


@dataclass(frozen=True, slots=True)
class Shape:
    """One way a task's rows may look: its roles, each with the column names it is recognised by, best first."""

    required: Mapping[str, tuple[str, ...]]
    optional: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    is_only_detected: bool = False
    """Whether the shape stands for nothing once the user has named a column: it would add another behind their back."""

    @property
    def roles(self) -> set[str]:
        return {*self.required, *self.optional}


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
        DataError: a chosen column isn't there or was chosen twice, or no shape of the task can be made of the columns.
    """
    problems = [
        f"spec.data[0].columns.{role} ({wording.show_value(column)}) must be a column of {source}, which has"
        f" {wording.show_names(found)}{wording.suggest(column, found)}"
        for role, column in chosen.items()
        if column not in found
    ]
    repeated = [role for role, column in chosen.items() if list(chosen.values()).count(column) > 1]
    if repeated:
        column = wording.show_value(chosen[repeated[0]])
        problems.append(f"spec.data[0].columns must name a column for one role; {', '.join(repeated)} are {column}")
    if problems:
        raise DataError("; ".join(problems), "correct the column's name.")
    for shape in shapes:
        if set(chosen) <= shape.roles and (columns := _match_shape(found, chosen, shape)) is not None:
            return columns
    wanted = " or ".join(", ".join(shape.required) for shape in shapes if not shape.is_only_detected)
    # No name helps where there are fewer columns than roles.
    is_short = len(found) < min(len(shape.required) for shape in shapes)
    raise DataError(
        f"{source} must have columns for {wanted}; it has {wording.show_names(found)}",
        "give each a column of its own: in CSV separated by commas, semicolons, tabs or vertical bars, and named in the"
        " first line."
        if is_short
        else "name the columns in spec.data[0].columns.",
    )


def _match_shape(found: Sequence[str], chosen: Mapping[str, str], shape: Shape) -> dict[str, str] | None:
    if chosen and shape.is_only_detected:
        return None
    columns = dict(chosen)
    # Whoever names columns decides about the optional ones too: none is added behind their back.
    detected = shape.required if chosen else {**shape.required, **shape.optional}
    by_name = {name.lower(): name for name in reversed(found) if name not in chosen.values()}
    for role, aliases in detected.items():
        if role not in columns and (name := next((by_name[alias] for alias in aliases if alias in by_name), None)):
            columns[role] = name
            del by_name[name.lower()]
    return columns if set(shape.required) <= set(columns) else None


def check_header(found: Sequence[str], rows: Iterable[Mapping[str, object]], source: str) -> None:
    """Check that the names of columns don't look like values: a file without a header loses its first row.

    Asked once no role could be found in them.

    Raises:
        DataError: they do.
    """
    seen = list(rows)
    for name in found:
        is_value = any(row.get(name) == name for row in seen)
        if (
            is_value
            or _NUMBER.fullmatch(name)
            or len(" ".join(name.split())) > _LONG_NAME
            or name.rstrip().endswith((".", "?", "!"))
        ):
            raise DataError(
                f"{source} line 1: must be a header with the names of the columns; it looks like a row:"
                f" {wording.show_names(found)}",
                "put a first line into it that names the columns, such as text,label.",
            )


def check_same(found: Sequence[str], columns: Mapping[str, str], optional: set[str], file: str, first: str) -> None:
    """Check that a further file has the columns of the first one.

    Args:
        found: columns of the file.
        columns: by role, as found in the first file.
        optional: roles that a row may lack.
        file: its name.
        first: name of the file the columns were found in.

    Raises:
        DataError: a column is missing.
    """
    if any(column not in found for role, column in columns.items() if role not in optional):
        wanted = wording.show_names(list(columns.values()))
        raise DataError(
            f"{file} must have {first}'s columns {wanted}; it has {wording.show_names(found)}",
            f"rename the columns in {file}: training, validation and test files of spec.data[0] have the same.",
        )


def describe_twins(found: Sequence[str], columns: Mapping[str, str]) -> list[str]:
    """Say which columns that were not chosen have the name of a chosen one in another case."""
    return [
        f"columns {wording.show_names([taken, name])} differ in case only: the first is read as {role}"
        for role, taken in columns.items()
        for name in found
        if name != taken and name.lower() == taken.lower()
    ]


def find_unused(columns: Mapping[str, str], rows: Iterable[Mapping[str, object]]) -> list[str]:
    """Return the columns with texts that no role takes, in their order: what stands in them is not learned."""
    taken = set(columns.values())
    names = dict.fromkeys(name for row in rows for name, value in row.items() if name not in taken and _has_text(value))
    return list(names)


def _has_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip()) and not _NUMBER.fullmatch(value.strip())

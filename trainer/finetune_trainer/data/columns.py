"""Which column of a file plays which role of a task: as the user named them, or by the names they usually have."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from finetune_api.errors import DataError
from finetune_trainer.data import findings as wording


@dataclass(frozen=True, slots=True)
class Shape:
    """One way a task's rows may look: its roles, each with the column names it is recognised by, best first."""

    required: Mapping[str, tuple[str, ...]]
    optional: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

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
        DataError: a chosen column isn't there, or no shape of the task can be made of the columns.
    """
    missing = {role: column for role, column in chosen.items() if column not in found}
    if missing:
        raise DataError(
            "; ".join(
                f"spec.data[0].columns.{role} ({column}) must be a column of {source}, which has"
                f" {wording.show_names(found)}{wording.suggest(column, found)}"
                for role, column in missing.items()
            ),
            "correct the column's name.",
        )
    for shape in shapes:
        if set(chosen) <= shape.roles and (columns := _match_shape(found, chosen, shape)) is not None:
            return columns
    wanted = " or ".join(", ".join(shape.required) for shape in shapes)
    raise DataError(
        f"{source} must have columns for {wanted}; it has {wording.show_names(found)}",
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

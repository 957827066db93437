"""Conditions as every kind reports them, and the pure update of one.

Nothing here reads a clock. Which types and reasons there are is each kind's to say.
"""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from finetune_api.kinds.object_model import Model
from finetune_api.kinds.status_fields import Message, ReasonText, Time, build_message, build_time


class ConditionStatus(StrEnum):
    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(Model):
    """As metav1.Condition (https://github.com/kubernetes/community, api-conventions.md, typical status properties)."""

    type: Annotated[str, Field(max_length=64, pattern=r"^[A-Za-z]+$")]
    """type of the condition."""
    status: ConditionStatus
    """status: True, False or Unknown."""
    observed_generation: Annotated[int, Field(ge=0)] | None = None
    """observedGeneration of the spec this was decided for."""
    last_transition_time: Time
    """lastTransitionTime of the status."""
    reason: ReasonText
    """reason in one CamelCase word."""
    message: Message = ""
    """message with cause and remedy in one sentence each."""


def find_condition(conditions: Sequence[Condition], condition_type: str) -> Condition | None:
    """Return the condition of that type, if there is one."""
    return next((item for item in conditions if item.type == condition_type), None)


def is_true(conditions: Sequence[Condition], condition_type: str) -> bool:
    """Tell whether a condition is there and True."""
    found = find_condition(conditions, condition_type)
    return found is not None and found.status == ConditionStatus.TRUE


def update_condition(
    conditions: Sequence[Condition],
    condition_type: str,
    status: ConditionStatus,
    reason: str,
    message: str,
    *,
    generation: int,
    now: datetime,
) -> list[Condition]:
    """Return the conditions with one of them set; `lastTransitionTime` moves only when its status does."""
    old = find_condition(conditions, condition_type)
    moved = old is None or old.status != status
    new = Condition(
        type=condition_type,
        status=status,
        observed_generation=generation,
        last_transition_time=build_time(now) if moved or old is None else old.last_transition_time,
        reason=str(reason),
        message=build_message(message),
    )
    if old is None:
        return [*conditions, new]
    return [new if item is old else item for item in conditions]

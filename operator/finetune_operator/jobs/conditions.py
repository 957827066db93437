"""From a result to conditions: every condition is set in every pass, as kstatus reads them.

`Reconciling` and `Stalled` are never both True; a failed run is Stalled. Pure.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from finetune_api.kinds import status_conditions, status_fields
from finetune_api.kinds.finetunejob.status import ConditionType, Failure, FineTuneJobStatus, Milestone, Reason
from finetune_api.kinds.status_conditions import Condition, ConditionStatus
from finetune_operator.runtime import logs

TRUE, FALSE, UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN


class State(StrEnum):
    PENDING = "Pending"
    QUEUED = "Queued"
    RUNNING = "Running"
    RETRYING = "Retrying"
    STOPPING = "Stopping"
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


@dataclass(frozen=True, slots=True)
class Result:
    """Where the run stands after this pass.

    Attributes:
        reason: a failure's reason where the run is stalled or failed, the outcome where it succeeded, else empty.
        is_stalled: nothing moves until somebody acts.
        requeue_after: seconds after which time alone may change the result.
    """

    state: State
    message: str
    reason: str = ""
    is_stalled: bool = False
    failure: Failure | None = None
    requeue_after: float | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What the conditions tell beside the result.

    Attributes:
        has_job: the live attempt's Job exists.
        is_held: a queue holds that Job back.
        running_since: a pod runs since then.
        stuck_pod: a pod that can't be removed, with since when; empty: none.
    """

    has_job: bool = False
    is_held: bool = False
    running_since: datetime | None = None
    stuck_pod: str = ""


_READY_REASONS = {
    State.PENDING: Milestone.PENDING,
    State.QUEUED: Milestone.QUEUED,
    State.RUNNING: Milestone.RUNNING,
    State.RETRYING: Milestone.RETRYING,
    State.STOPPING: Milestone.SUSPENDED,
    State.SUSPENDED: Milestone.SUSPENDED,
    State.SUCCEEDED: Milestone.SUCCEEDED,
    State.FAILED: Milestone.FAILED,
}
_MOVING = {State.PENDING, State.QUEUED, State.RUNNING, State.RETRYING, State.STOPPING}
_DELETED = "; deleted since, because the model is published"

Row = tuple[ConditionType, ConditionStatus, str, str]


def build_conditions(
    current: FineTuneJobStatus, result: Result, facts: Facts, *, generation: int, now: datetime
) -> list[Condition]:
    """Return all conditions for a result; a condition that stays the same keeps its transition time."""
    conditions: Sequence[Condition] = current.conditions
    rows = [*_build_outcome_rows(result), _build_suspended_row(result, facts)]
    rows += _build_milestone_rows(current, result, facts)
    for condition_type, value, reason, message in rows:
        # Whoever wrote a part of it: a scheduler, a webhook, a pod.
        text = logs.scrub_text(message)
        conditions = status_conditions.update_condition(
            conditions, condition_type, value, reason, text, generation=generation, now=now
        )
    if facts.running_since is None:
        return list(conditions)
    # The running pod's own start counts, not the moment it was noticed: running time is measured from there.
    start = {"last_transition_time": status_fields.build_time(facts.running_since)}
    is_running = ConditionType.RUNNING
    return [item.model_copy(update=start) if item.type == is_running else item for item in conditions]


def _build_outcome_rows(result: Result) -> list[Row]:
    state, text = result.state, result.message
    is_moving = state in _MOVING and not result.is_stalled
    is_stalled = result.is_stalled or state is State.FAILED
    plain = _READY_REASONS[state].value
    ready_reason = Milestone.RETRYING.value if result.reason == Milestone.RETRYING else plain
    if result.reason == Reason.REFERENCE_NOT_FOUND and state is not State.FAILED:
        ready_reason = Reason.REFERENCE_NOT_FOUND.value
    moving_reason = Milestone.RETRYING if state is State.RETRYING else Milestone.PROGRESSING
    return [
        (ConditionType.READY, TRUE if state is State.SUCCEEDED else FALSE, ready_reason, text),
        (ConditionType.RECONCILING, *((TRUE, moving_reason.value, text) if is_moving else (FALSE, plain, ""))),
        (ConditionType.STALLED, *((TRUE, result.reason, text) if is_stalled else (FALSE, plain, ""))),
        *_build_end_rows(result),
    ]


def _build_end_rows(result: Result) -> list[Row]:
    waiting = Milestone.NOT_FINISHED.value
    if result.state is State.SUCCEEDED:
        return [
            (ConditionType.SUCCEEDED, TRUE, result.reason, result.message),
            (ConditionType.FAILED, FALSE, result.reason, ""),
            (ConditionType.FINISHED, TRUE, Milestone.SUCCEEDED.value, result.message),
        ]
    if result.state is State.FAILED:
        return [
            (ConditionType.SUCCEEDED, FALSE, result.reason, result.message),
            (ConditionType.FAILED, TRUE, result.reason, result.message),
            (ConditionType.FINISHED, TRUE, Milestone.FAILED.value, result.message),
        ]
    return [
        (ConditionType.SUCCEEDED, UNKNOWN, waiting, ""),
        (ConditionType.FAILED, FALSE, waiting, ""),
        (ConditionType.FINISHED, FALSE, waiting, ""),
    ]


def _build_suspended_row(result: Result, facts: Facts) -> Row:
    if result.state is State.SUSPENDED:
        return (ConditionType.SUSPENDED, TRUE, Milestone.USER_REQUESTED.value, result.message)
    if result.state is State.STOPPING:
        return (ConditionType.SUSPENDED, FALSE, Milestone.USER_REQUESTED.value, result.message)
    if result.state is State.QUEUED and facts.is_held:
        return (ConditionType.SUSPENDED, TRUE, Milestone.QUEUED_BY_KUEUE.value, result.message)
    return (ConditionType.SUSPENDED, FALSE, _READY_REASONS[result.state].value, "")


def _build_milestone_rows(current: FineTuneJobStatus, result: Result, facts: Facts) -> list[Row]:
    is_finished = result.state in (State.SUCCEEDED, State.FAILED)
    undecided = FALSE if is_finished else UNKNOWN
    pending = _READY_REASONS[result.state].value

    def milestone(condition_type: ConditionType, is_reached: bool, reason: Milestone) -> Row:
        return (condition_type, TRUE, reason.value, "") if is_reached else (condition_type, undecided, pending, "")

    quota: Row = (ConditionType.QUOTA_RESERVED, undecided, pending, "")
    if facts.has_job:
        held = (FALSE, Milestone.QUEUED.value, result.message)
        quota = (ConditionType.QUOTA_RESERVED, *(held if facts.is_held else (TRUE, Milestone.ADMITTED.value, "")))
    running = facts.running_since is not None
    rows: list[Row] = [
        milestone(ConditionType.VALIDATED, current.prepared_sha256 is not None, Milestone.VALIDATED),
        quota,
        (ConditionType.RUNNING, TRUE if running else FALSE, Milestone.RUNNING.value if running else pending, ""),
        milestone(ConditionType.ARTIFACTS_UPLOADED, current.artifacts is not None, Milestone.ARTIFACTS_UPLOADED),
        _build_checkpoint_row(current, result, undecided, pending),
        (ConditionType.TERMINATION_STUCK, *_build_stuck(facts)),
    ]
    was_created = is_finished and status_conditions.is_true(current.conditions, ConditionType.JOB_CREATED)
    has_job = facts.has_job or was_created
    created = Milestone.JOB_CREATED.value if has_job else pending
    return [*rows, (ConditionType.JOB_CREATED, TRUE if has_job else FALSE, created, "")]


def _build_checkpoint_row(current: FineTuneJobStatus, result: Result, undecided: ConditionStatus, pending: str) -> Row:
    condition_type = ConditionType.CHECKPOINT_SAVED
    newest = current.checkpoints[0] if current.checkpoints else None
    text = f"step {newest.step} of attempt {newest.attempt}, saved at {newest.time}" if newest is not None else ""
    failure = current.progress.checkpoint_failure if current.progress is not None else None
    if failure:
        known = f"the newest is that of {text}" if text else "there is none yet"
        return (condition_type, FALSE, Milestone.CHECKPOINT_FAILED.value, f"{failure}; {known}")
    if text:
        return (condition_type, TRUE, Milestone.CHECKPOINT_SAVED.value, text)
    old = status_conditions.find_condition(current.conditions, condition_type)
    if old is not None and old.status == TRUE:
        # Reached all the same: they are deleted when the run has succeeded.
        is_news = result.state is State.SUCCEEDED and not old.message.endswith(_DELETED)
        return (condition_type, TRUE, old.reason, old.message + _DELETED if is_news else old.message)
    return (condition_type, undecided, pending, "")


def _build_stuck(facts: Facts) -> tuple[ConditionStatus, str, str]:
    if facts.stuck_pod:
        return (TRUE, Milestone.NODE_UNREACHABLE.value, facts.stuck_pod)
    return (FALSE, Milestone.NOT_FINISHED.value, "")

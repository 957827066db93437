"""Arithmetic on `status.attempts`: beginning one, ending one, how long its pods ran and how long none did.

The condition `Running` says since when a pod runs, `activeSeconds` what earlier pods of the same attempt sum to.
Nothing has to be written while a pod just runs. Pure.
"""

from collections.abc import Sequence
from datetime import datetime

from finetune_api import names
from finetune_api.kinds import status_conditions, status_fields
from finetune_api.kinds.attempts import MAX_ATTEMPTS, Attempt
from finetune_api.kinds.finetunejob.status import ConditionType, FineTuneJobStatus
from finetune_api.kinds.status_conditions import ConditionStatus
from finetune_api.run import Stage
from finetune_operator.jobs.observe import ChildPod
from finetune_operator.jobs.policies import elapsed


def begin(current: FineTuneJobStatus, stage: Stage, job_name: str, job_uid: str) -> FineTuneJobStatus:
    """Append the next attempt of a stage. Numbers count within the stage and never come back."""
    last = current.attempts[-1] if current.attempts else None
    number = last.number + 1 if last is not None and last.stage == stage else 1
    attempt = Attempt(
        number=number, stage=stage.value, job=names.build_child_name(job_name, job_uid, stage.value, number)
    )
    attempts = [*current.attempts, attempt][-MAX_ATTEMPTS:]
    return current.model_copy(update={"attempts": attempts, "attempt_count": number})


def end(
    current: FineTuneJobStatus, *, cause: str, is_counted: bool, ended_at: datetime, active_seconds: int
) -> FineTuneJobStatus:
    """End the open attempt and add it to the sums of the run."""
    attempt = current.attempts[-1].model_copy(
        update={
            "end_time": status_fields.build_time(ended_at),
            "cause": cause,
            "counted": is_counted,
            "active_seconds": active_seconds,
        }
    )
    return current.model_copy(
        update={
            "attempts": [*current.attempts[:-1], attempt],
            "active_seconds": current.active_seconds + active_seconds,
            "failed_attempts": current.failed_attempts + int(is_counted),
        }
    )


def find_running_since(current: FineTuneJobStatus) -> datetime | None:
    """Return since when a pod runs, as the status has it."""
    running = status_conditions.find_condition(current.conditions, ConditionType.RUNNING)
    if running is None or running.status != ConditionStatus.TRUE:
        return None
    return status_fields.parse_time(running.last_transition_time)


def measure_active_seconds(
    attempt: Attempt, running_since: datetime | None, pods: Sequence[ChildPod], now: datetime
) -> int:
    """Return how long pods of this attempt ran until now.

    Two lower bounds, each blind where the other sees: what the status records misses what ran while the operator was
    down, the pods miss those of their number that were deleted.
    """
    ends = [end for pod in pods if (end := pod.find_end(now)) is not None]
    is_running = any(pod.is_running(now) for pod in pods)
    until = now if is_running or not ends else min(now, max(ends))
    recorded = attempt.active_seconds + elapsed.compute_elapsed_seconds(running_since, until)
    visible = sum(elapsed.compute_elapsed_seconds(pod.started_at, pod.find_end(now) or until) for pod in pods)
    return max(recorded, visible)


def compute_pending_seconds(current: FineTuneJobStatus, now: datetime) -> int:
    """Return for how long no pod has run."""
    since = status_fields.parse_time(current.pending_since) if current.pending_since else None
    return elapsed.compute_elapsed_seconds(since, now)

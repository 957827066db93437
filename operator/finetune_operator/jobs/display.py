"""What `kubectl get` shows of a run: phase, reason and metric. Derived for people; nothing decides by it. Pure."""

from collections.abc import Sequence

from finetune_api.kinds import status_conditions
from finetune_api.kinds.finetunejob.status import ConditionType, FineTuneJobStatus, Milestone, Phase, ResolvedKey
from finetune_api.kinds.status_conditions import Condition, ConditionStatus

_PREFERRED_SPLITS = ("test", "validation")


def derive_phase(conditions: Sequence[Condition]) -> Phase:
    """Name the phase; the first that matches wins."""
    ready = status_conditions.find_condition(conditions, ConditionType.READY)
    suspended = status_conditions.find_condition(conditions, ConditionType.SUSPENDED)
    if status_conditions.is_true(conditions, ConditionType.SUCCEEDED):
        return Phase.SUCCEEDED
    if status_conditions.is_true(conditions, ConditionType.FAILED):
        return Phase.FAILED
    is_suspended = suspended is not None and suspended.status == ConditionStatus.TRUE
    if is_suspended and suspended is not None and suspended.reason == Milestone.USER_REQUESTED:
        return Phase.SUSPENDED
    if ready is not None and ready.reason == Milestone.QUEUED:
        return Phase.QUEUED
    if not status_conditions.is_true(conditions, ConditionType.VALIDATED):
        return Phase.VALIDATING if status_conditions.is_true(conditions, ConditionType.JOB_CREATED) else Phase.PENDING
    return Phase.TRAINING if status_conditions.is_true(conditions, ConditionType.RUNNING) else Phase.PENDING


def derive_reason(conditions: Sequence[Condition]) -> str | None:
    """Name why a run stands where it does: what stalls or ended it, else what it does."""
    for condition_type in (ConditionType.FAILED, ConditionType.STALLED, ConditionType.SUCCEEDED):
        found = status_conditions.find_condition(conditions, condition_type)
        if found is not None and found.status == ConditionStatus.TRUE:
            return found.reason
    ready = status_conditions.find_condition(conditions, ConditionType.READY)
    return ready.reason if ready is not None else None


def derive_metric(current: FineTuneJobStatus) -> str | None:
    """Write the figure of the tuned model that chose the weights; of the best so far while it trains, else None."""
    tuned = current.metrics.tuned if current.metrics is not None else []
    wanted = current.resolved.get(ResolvedKey.BEST_METRIC, "")
    named = [item for item in tuned if item.name == wanted] or tuned[:1]
    if not tuned and current.progress is not None and current.progress.last_evaluation is not None:
        # While it trains: of the best evaluation so far, of which the figure that chooses comes first.
        evaluation = current.progress.last_evaluation
        named = evaluation.metrics[:1] if evaluation.is_best else []
        if not named:
            return current.metric
    best = [item for split in _PREFERRED_SPLITS for item in named if item.split == split] or named
    return f"{best[0].name}={best[0].value}" if best else None

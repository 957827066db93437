"""Events about what became true in a pass; what was true before was recorded before. Pure."""

from finetune_api.kinds import status_conditions
from finetune_api.kinds.finetunejob.status import ConditionType, Milestone
from finetune_operator.jobs.conditions import Result, State
from finetune_operator.jobs.context import Context


def record_transitions(context: Context, result: Result) -> None:
    """Add the Events for what differs between the conditions as they were read and as they will be."""
    old, new = context.job.status.conditions, context.status.conditions

    def became_true(condition_type: ConditionType) -> bool:
        return status_conditions.is_true(new, condition_type) and not status_conditions.is_true(old, condition_type)

    if became_true(ConditionType.VALIDATED):
        context.record_event(Milestone.VALIDATED, "model, data and memory are checked; the training can begin")
    if became_true(ConditionType.RUNNING):
        last = context.status.attempts[-1]
        context.record_event(Milestone.RUNNING, f"attempt {last.number} of stage {last.stage} runs")
    if result.state is State.SUSPENDED and became_true(ConditionType.SUSPENDED):
        context.record_event(Milestone.SUSPENDED, result.message)
    if became_true(ConditionType.TERMINATION_STUCK):
        stuck = status_conditions.find_condition(new, ConditionType.TERMINATION_STUCK)
        context.record_event(Milestone.NODE_UNREACHABLE, stuck.message if stuck is not None else "", is_warning=True)
    _record_checkpoint_failure(context)
    _record_evaluation(context)
    if result.state is State.SUCCEEDED:
        context.record_event(Milestone.SUCCEEDED, result.message)
    # A stuck pod was recorded above.
    is_news = result.reason != Milestone.NODE_UNREACHABLE and _is_new_stall(context, result)
    if result.state is State.FAILED or (result.is_stalled and is_news):
        context.record_event(result.reason, result.message, is_warning=True)


def _record_checkpoint_failure(context: Context) -> None:
    old, new = (
        status_conditions.find_condition(item.conditions, ConditionType.CHECKPOINT_SAVED)
        for item in (context.job.status, context.status)
    )
    was_told = old is not None and old.reason == Milestone.CHECKPOINT_FAILED
    if new is not None and new.reason == Milestone.CHECKPOINT_FAILED and not was_told:
        context.record_event(Milestone.CHECKPOINT_FAILED, new.message, is_warning=True)


def _record_evaluation(context: Context) -> None:
    old, new = (
        item.progress.last_evaluation if item.progress else None for item in (context.job.status, context.status)
    )
    if new is None or new == old or not new.metrics:
        return
    figure = f"{new.metrics[0].name}={new.metrics[0].value}"
    best = "the best so far" if new.is_best else "an earlier one was at least as good"
    context.record_event(Milestone.EVALUATED, f"step {new.step}: {figure} on the validation rows, {best}")


def _is_new_stall(context: Context, result: Result) -> bool:
    before = status_conditions.find_condition(context.job.status.conditions, ConditionType.STALLED)
    return before is None or before.reason != result.reason

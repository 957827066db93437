"""`status.progress`: how far the run is. What its pods told is there; the rest follows from the result. Pure."""

from finetune_api.kinds import status_fields
from finetune_api.kinds.finetunejob.status import Progress, ResolvedKey
from finetune_api.run import Stage
from finetune_operator.jobs.conditions import Result, State
from finetune_operator.jobs.context import Context

_SUCCEEDED_PERCENT = 100


def build_progress(context: Context, result: Result) -> Progress:
    """Return the progress after this pass; an unchanged one keeps its time."""
    told = context.status.progress or Progress()
    last = context.status.attempts[-1] if context.status.attempts else None
    total = context.status.resolved.get(ResolvedKey.TOTAL_STEPS, "")
    changes: dict[str, object] = {"stage": last.stage if last is not None else Stage.PREPARE.value}
    if not told.total_steps and total.isdecimal():
        changes["total_steps"] = int(total)
    if result.state is State.SUCCEEDED:
        changes["percent"] = _SUCCEEDED_PERCENT
        changes["step"] = context.final_step if context.final_step is not None else told.step
    if result.state is not State.RUNNING:
        # True of a running pod alone.
        changes |= dict.fromkeys(
            ("phase", "estimated_remaining_seconds", "estimated_completion_time", "tokens_per_second")
        )
    new = told.model_copy(update=changes)
    is_same = new == context.job.status.progress
    return new if is_same else new.model_copy(update={"update_time": status_fields.build_time(context.now)})

"""`status.progress`: how far the run is. Milestones the operator knows for certain, no measurements. Pure."""

from finetune_api.kinds.finetunejob import status
from finetune_api.kinds.finetunejob.status import Progress, ResolvedKey
from finetune_api.run import Stage
from finetune_operator.jobs.conditions import Result, State
from finetune_operator.jobs.context import Context

_VALIDATED_PERCENT, _TRAINING_PERCENT, _SUCCEEDED_PERCENT = 10, 20, 100
"""A choice; 100 is success alone."""


def build_progress(context: Context, result: Result) -> Progress:
    """Return the progress after this pass; it never goes back, and an unchanged one keeps its time."""
    old = context.status.progress or Progress()
    last = context.status.attempts[-1] if context.status.attempts else None
    total = context.status.resolved.get(ResolvedKey.TOTAL_STEPS, "")
    new = old.model_copy(
        update={
            "stage": last.stage if last is not None else Stage.PREPARE.value,
            "percent": max(old.percent, _compute_percent(context, result)),
            "total_steps": int(total) if total.isdecimal() else old.total_steps,
            "step": context.final_step if context.final_step is not None else old.step,
        }
    )
    return old if new == old else new.model_copy(update={"update_time": status.build_time(context.now)})


def _compute_percent(context: Context, result: Result) -> int:
    if result.state is State.SUCCEEDED:
        return _SUCCEEDED_PERCENT
    if context.status.prepared_sha256 is None:
        return 0
    last = context.status.attempts[-1] if context.status.attempts else None
    is_training = last is not None and last.stage == Stage.TRAIN and last.start_time is not None
    return _TRAINING_PERCENT if is_training else _VALIDATED_PERCENT

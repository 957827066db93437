"""Where a pod went on from after an interruption, what was lost by it, and the words for both. Pure."""

from datetime import datetime

from finetune_api.kinds import status_fields
from finetune_api.kinds.finetunejob.status import FineTuneJobStatus, Milestone, Progress
from finetune_api.run import Stage
from finetune_operator.jobs.context import Context
from finetune_operator.jobs.observe import ChildPod
from finetune_operator.jobs.policies import elapsed


def record_begin(
    context: Context, pod: ChildPod, step: int, told_lost_steps: int | None, end_step: int | None = None
) -> None:
    """Record the step that a pod of the open attempt went on from, 0 where it began anew.

    Lost are the steps that the pods before it are known to have reached beyond that step.

    Args:
        told_lost_steps: as many as the pod itself knows of.
        end_step: how far the pod before it came, where that told its end.
    """
    seconds_before = _find_earlier_seconds(context, pod)
    if seconds_before is None:
        return
    progress = context.status.progress or Progress()
    lost_steps = max(told_lost_steps or 0, progress.step - step, 0)
    # Where it is known that no step is lost, the pod before saved what it had when it was told to end.
    is_whole = not lost_steps and progress.step > 0
    lost_seconds = 0 if is_whole else _measure_lost_seconds(context, pod, step, seconds_before)
    context.update_attempt(resumed_from_step=step)
    context.update(
        lost_steps=context.status.lost_steps + lost_steps, lost_seconds=context.status.lost_seconds + lost_seconds
    )
    number = context.status.attempts[-1].number
    begin = f"goes on from step {step}" if step else "begins anew: no checkpoint could be used"
    # A pod that was killed hasn't told how far it came: it had been asked some seconds before.
    nothing = "no step is lost" if end_step == step else "no step is known to be lost"
    lost = f"at least {lost_steps} steps are made again ({lost_seconds} s)" if lost_steps else nothing
    context.record_event(Milestone.RESUMED, f"attempt {number} {begin}; {lost}")


def describe_begin(current: FineTuneJobStatus) -> str:
    """Say where the training will go on after a pause; empty where nothing was done that could be lost."""
    last = current.attempts[-1] if current.attempts else None
    if last is None or last.cause != Milestone.SUSPENDED or not last.active_seconds:
        return ""
    if last.stage == Stage.TRAIN and current.checkpoints:
        return f"; it goes on from step {current.checkpoints[0].step}"
    if last.stage == Stage.TRAIN:
        return f"; no checkpoint is known, so the {last.active_seconds} s of attempt {last.number} may be lost"
    return (
        f"; the {last.active_seconds} s of attempt {last.number} of stage {last.stage} are lost, the next begins anew"
    )


def describe_stop(context: Context) -> str:
    """Say what becomes of the work of an attempt that is being stopped; empty where it has done none."""
    attempt = context.attempt
    if attempt is None or (attempt.start_time is None and context.running_since is None):
        return ""
    if attempt.stage != Stage.TRAIN:
        return "; what this attempt has done is lost: the prepare stage begins anew"
    known = context.status.checkpoints
    newest = f"; the newest so far is that of step {known[0].step}" if known else ""
    return f"; a training that has begun saves a checkpoint first{newest}"


def _find_earlier_seconds(context: Context, pod: ChildPod) -> int | None:
    """Return how long pods that trained before this one ran, those of the last attempt; None: it is the first."""
    attempt = context.status.attempts[-1]
    others = [item for item in context.list_pods() if item.uid != pod.uid and item.started_at is not None]
    if attempt.active_seconds or others:
        return attempt.active_seconds
    earlier = [item for item in context.status.attempts[:-1] if item.stage == Stage.TRAIN and item.start_time]
    return earlier[-1].active_seconds if earlier else None


def _measure_lost_seconds(context: Context, pod: ChildPod, step: int, seconds_before: int) -> int:
    """Return the training time since the checkpoint that the pod went on from, as far as it can be known."""
    saved = next((item for item in context.status.checkpoints if item.step == step), None)
    if saved is None:
        return seconds_before if step == 0 else 0
    ended_at = _find_earlier_end(context, pod)
    return min(seconds_before, elapsed.compute_elapsed_seconds(status_fields.parse_time(saved.time), ended_at))


def _find_earlier_end(context: Context, pod: ChildPod) -> datetime:
    """Return when the pod before this one ended; it had when this one was made, at the latest."""
    others = [item for item in context.list_pods() if item.uid != pod.uid]
    ends = [item.finished_at for item in others if item.finished_at is not None]
    former = context.status.attempts[:-1]
    if not ends and former and former[-1].end_time is not None:
        ends = [status_fields.parse_time(former[-1].end_time)]
    return min([max(ends), pod.created_at] if ends else [pod.created_at])

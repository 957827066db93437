"""A live attempt: what its pods do, why none runs, and what a run waits for between two attempts. Pure."""

from datetime import datetime

from finetune_api import exits
from finetune_api.kinds import status_fields
from finetune_api.kinds.attempts import Attempt
from finetune_api.kinds.finetunejob.spec import FineTuneJobSpec
from finetune_api.kinds.finetunejob.status import Milestone, Reason
from finetune_api.run import Stage
from finetune_operator.jobs.attempts import clock, deadlines, outcome, wait_causes
from finetune_operator.jobs.conditions import Result, State
from finetune_operator.jobs.context import Context
from finetune_operator.jobs.observe import ChildJob, ChildPod
from finetune_operator.jobs.policies import elapsed
from finetune_operator.runtime.plan import PatchJob


def await_completion(context: Context) -> Result | None:
    """Hold everything while a pod has committed its result and its Job is not complete, a moment later.

    What is committed counts: neither a limit nor the wish to suspend may end or stop the attempt now. A Job that isn't
    complete after minutes is ended before this is asked (`end`).
    """
    attempt, child = context.attempt, context.child
    if attempt is None or child is None or attempt.cause == Milestone.SUSPENDED:
        return None
    success = outcome.find_success(attempt, context.list_pods())
    if success is None:
        return None
    context.running_since = clock.find_running_since(context.status)
    text = f"attempt {attempt.number} has its result; Job {child.name} is being completed"
    wait = (outcome.find_completion_deadline(success, context.now) - context.now).total_seconds()
    return Result(State.RUNNING, text, requeue_after=max(1.0, wait))


def record_pods(context: Context) -> None:
    """Record what the live attempt's pods do: the Job's uid, since when one runs or none does, and why."""
    attempt, child = context.attempt, context.child
    if attempt is None or child is None:
        return
    if attempt.job_uid is None or attempt.refusal is not None:
        context.update_attempt(job_uid=attempt.job_uid or child.uid, refusal=None)
    pods = context.list_pods()
    since = clock.find_running_since(context.status)
    running = next((pod for pod in reversed(pods) if pod.is_running(context.now)), None)
    if running is not None and running.started_at is not None:
        _record_running(context, child, running, running.started_at)
        return
    grace = context.settings.unschedulable_grace_seconds
    context.wait = wait_causes.describe_wait(child, pods, context.now, grace)
    if since is not None:
        context.update_attempt(active_seconds=clock.measure_active_seconds(attempt, since, pods, context.now))
        context.update(pending_since=status_fields.build_time(context.now))
        _record_interruption(context, child)
        return
    # A pod that ran while nobody looked has ended the wait before it.
    ended = max((pod.finished_at for pod in pods if pod.finished_at is not None), default=None)
    waiting_since = status_fields.parse_time(context.status.pending_since) if context.status.pending_since else None
    if ended is not None and waiting_since is not None and waiting_since < ended <= context.now:
        context.update(pending_since=status_fields.build_time(ended))


def follow_attempt(context: Context, spec: FineTuneJobSpec, attempt: Attempt, child: ChildJob) -> Result:
    """Say where the live attempt stands, and when time alone may change that."""
    limit = deadlines.compute_job_deadline(context, spec, Stage(attempt.stage))
    if child.active_deadline_seconds != limit and not child.is_deleting:
        context.actions.append(PatchJob(child.name, child.uid, {"activeDeadlineSeconds": limit}))
    wait = context.wait
    if wait is None:
        text = f"attempt {attempt.number} of stage {attempt.stage} runs"
        return Result(State.RUNNING, text, requeue_after=deadlines.find_running_wait(context, spec, attempt))
    state = State.QUEUED if wait.is_queued else State.PENDING
    requeue_after = deadlines.find_pending_wait(context, spec, child)
    return Result(state, wait.message, str(wait.reason), wait.is_stalled, requeue_after=requeue_after)


def await_removal(context: Context, spec: FineTuneJobSpec) -> Result:
    """Wait for the pods of former attempts, as long as for any other pod."""
    context.update(pending_since=context.status.pending_since or status_fields.build_time(context.now))
    wait = deadlines.find_removal_wait(context, spec)
    text = "waiting until the pods of the former attempt are gone"
    stuck = context.find_stuck_pod()
    if stuck:
        reason = Milestone.NODE_UNREACHABLE.value
        return Result(State.PENDING, f"{text}: {stuck}", reason, is_stalled=True, requeue_after=wait)
    waits = [wait, *deadlines.list_stuck_waits(context, context.list_remaining_pods())]
    return Result(State.PENDING, text, requeue_after=min(waits))


def _record_running(context: Context, child: ChildJob, running: ChildPod, started_at: datetime) -> None:
    since = clock.find_running_since(context.status)
    if since is not None and started_at > since:
        _record_replacement(context, child, since, running)
        since = started_at
    context.running_since = since or started_at
    context.update(pending_since=None)
    if context.status.attempts[-1].start_time is None:
        context.update_attempt(start_time=status_fields.build_time(started_at))


def _record_replacement(context: Context, child: ChildJob, since: datetime, running: ChildPod) -> None:
    """End the running time of a pod that was replaced between two passes: its successor's wait is none."""
    attempt = context.status.attempts[-1]
    others = [pod for pod in context.list_pods() if pod != running]
    # A pod that is gone ended when its successor was made, at the latest.
    ends = [pod.finished_at for pod in others if pod.finished_at is not None and pod.finished_at >= since]
    ended_at = min([*ends, running.created_at])
    seconds = attempt.active_seconds + elapsed.compute_elapsed_seconds(since, ended_at)
    context.update_attempt(active_seconds=seconds)
    _record_interruption(context, child)


def _record_interruption(context: Context, child: ChildJob) -> None:
    """Say why a pod that ran is gone while its Job goes on; other ends are told when the Job has ended."""
    if context.status.attempts[-1].cause == Milestone.SUSPENDED:
        return
    ran = [pod for pod in context.list_pods() if pod.started_at is not None and not pod.is_running(context.now)]
    last = ran[-1] if ran else None
    is_disrupted = last is not None and (bool(last.disruption) or last.exit_code in exits.IGNORED_EXIT_CODES)
    if child.is_suspended or is_disrupted:
        context.update(preemption_count=context.status.preemption_count + 1)
    if child.is_suspended:
        context.attempt_ends.append("preempted")
        text = f"the queue took the place of Job {child.name} back"
        context.record_event(Milestone.PREEMPTED, text, is_warning=True)
    elif last is not None and is_disrupted:
        context.attempt_ends.append("disruption")
        text = f"pod {last.name}: {last.disruption or 'stopped by a signal'}"
        context.record_event(Reason.POD_DISRUPTED, text, is_warning=True)

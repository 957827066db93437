"""The limits of a run, of its prepare stage and of its waiting, measured on one pass; and when time alone reaches one.

`policies.elapsed` is the arithmetic; here stands what it is applied to. Pure.
"""

from collections.abc import Sequence

from finetune_api.kinds.attempts import Attempt
from finetune_api.kinds.finetunejob.spec import FineTuneJobSpec
from finetune_api.kinds.finetunejob.status import Reason
from finetune_api.run import Stage
from finetune_operator.jobs import failures
from finetune_operator.jobs.attempts import clock
from finetune_operator.jobs.conditions import Result
from finetune_operator.jobs.context import Context
from finetune_operator.jobs.observe import STUCK_AFTER, ChildJob, ChildPod
from finetune_operator.jobs.policies import elapsed

EVENTS_AFTER_SECONDS = 10
"""A Job without pods for that long, or a pod that doesn't start, asks for its Events: they alone say why (a choice;
pods come within a second and start within some)."""
_MAX_EVENTS_PAUSE_SECONDS = 45
"""Whatever turns up is shown within a minute."""


def enforce_deadlines(context: Context, spec: FineTuneJobSpec) -> Result | None:
    """End the run where one of its limits is reached."""
    policy = spec.run_policy
    count = context.status.preemption_count
    if policy.preemption_limit is not None and count > policy.preemption_limit:
        text = f"the run was interrupted {count} times, of which preemptionLimit allows {policy.preemption_limit}"
        return failures.build_failed(Reason.PREEMPTION_LIMIT_EXCEEDED, text)
    used = _measure_run_seconds(context)
    if elapsed.is_reached(policy.active_deadline_seconds, used):
        text = f"the run took {used} s of the {policy.active_deadline_seconds} s that activeDeadlineSeconds allows"
        return failures.build_failed(Reason.DEADLINE_EXCEEDED, text)
    if _is_prepare_overdue(context):
        limit = context.settings.prepare_deadline_seconds
        text = f"the prepare stage ran for {limit} s, the longest this operator allows"
        return failures.build_failed(Reason.DEADLINE_EXCEEDED, text, "Use less data, or ask for a higher limit.")
    if _is_pending_overdue(context, spec):
        text = f"no pod ran for {policy.pending_deadline_seconds} s: {_describe_pending(context)}"
        return failures.build_failed(Reason.PENDING_DEADLINE_EXCEEDED, text)
    return None


def is_out_of_time(context: Context, attempt: Attempt, child: ChildJob) -> bool:
    """Tell whether the run has used up its limits at the end of this Job, going by what was seen of it."""
    if context.spec is None:
        return True
    policy, ended_at = context.spec.run_policy, child.finished_at or context.now
    since = clock.find_running_since(context.status)
    used = clock.measure_active_seconds(attempt, since, context.list_pods(), ended_at)
    is_long = elapsed.is_reached(policy.active_deadline_seconds, context.status.active_seconds + used)
    if attempt.stage == Stage.PREPARE:
        is_long = is_long or elapsed.is_reached(context.settings.prepare_deadline_seconds, used)
    # Nothing seen to run for so long: it waited too long, or ran unseen for as long.
    pending = clock.compute_pending_seconds(context.status, ended_at)
    return is_long or elapsed.is_reached(policy.pending_deadline_seconds, pending)


def compute_job_deadline(context: Context, spec: FineTuneJobSpec, stage: Stage) -> int:
    """Return the limit that the child Job itself gets."""
    policy = spec.run_policy
    left = policy.active_deadline_seconds - context.status.active_seconds
    if stage is Stage.PREPARE:
        left = min(left, context.settings.prepare_deadline_seconds)
    return elapsed.compute_job_deadline_seconds(left, policy.pending_deadline_seconds)


def find_running_wait(context: Context, spec: FineTuneJobSpec, attempt: Attempt) -> float:
    """Return after how many seconds a running pod reaches a limit."""
    left = elapsed.compute_wait_seconds(spec.run_policy.active_deadline_seconds, _measure_run_seconds(context))
    waits = [left, *list_stuck_waits(context, context.list_pods())]
    if attempt.stage == Stage.PREPARE:
        used = _measure_attempt_seconds(context, attempt)
        waits.append(elapsed.compute_wait_seconds(context.settings.prepare_deadline_seconds, used))
    return min(waits)


def find_pending_wait(context: Context, spec: FineTuneJobSpec, child: ChildJob) -> float:
    """Return after how many seconds a pod that doesn't run must be looked at again."""
    pending = clock.compute_pending_seconds(context.status, context.now)
    waits = [elapsed.compute_wait_seconds(spec.run_policy.pending_deadline_seconds, pending)]
    if context.wait is not None and context.wait.stalls_at is not None:
        waits.append((context.wait.stalls_at - context.now).total_seconds())
    pods = [pod for pod in context.list_pods() if not pod.is_terminal]
    if (not pods or any(pod.is_starting() for pod in pods)) and not child.is_suspended:
        # What the pod does is told by the watch; why there is none, or it doesn't start, must be asked for: the longer
        # it waits the less often.
        waits.append(float(min(max(EVENTS_AFTER_SECONDS, pending / 2), _MAX_EVENTS_PAUSE_SECONDS)))
    return min(waits)


def find_removal_wait(context: Context, spec: FineTuneJobSpec) -> float:
    """Return after how many seconds pods that must go first have taken too long."""
    pending = clock.compute_pending_seconds(context.status, context.now)
    return elapsed.compute_wait_seconds(spec.run_policy.pending_deadline_seconds, pending)


def list_stuck_waits(context: Context, pods: Sequence[ChildPod]) -> list[float]:
    """Return in how many seconds pods on their way out will be overdue."""
    due = [pod.removal_due_at for pod in pods if pod.removal_due_at is not None and not pod.is_terminal]
    waits = [(moment + STUCK_AFTER - context.now).total_seconds() + 1 for moment in due]
    return [seconds for seconds in waits if seconds > 0]


def _measure_run_seconds(context: Context) -> int:
    attempt = context.attempt
    if attempt is None:
        return context.status.active_seconds
    return context.status.active_seconds + _measure_attempt_seconds(context, attempt)


def _measure_attempt_seconds(context: Context, attempt: Attempt) -> int:
    return clock.measure_active_seconds(attempt, context.running_since, context.list_pods(), context.now)


def _is_prepare_overdue(context: Context) -> bool:
    attempt = context.attempt
    if attempt is None or attempt.stage != Stage.PREPARE:
        return False
    used = _measure_attempt_seconds(context, attempt)
    return elapsed.is_reached(context.settings.prepare_deadline_seconds, used)


def _is_pending_overdue(context: Context, spec: FineTuneJobSpec) -> bool:
    if context.running_since is not None or context.status.pending_since is None:
        return False
    pending = clock.compute_pending_seconds(context.status, context.now)
    return elapsed.is_reached(spec.run_policy.pending_deadline_seconds, pending)


def _describe_pending(context: Context) -> str:
    if context.wait is not None:
        return context.wait.message
    if context.attempt is None:
        return "the pods of the former attempt are still there"
    refusal = context.attempt.refusal
    return refusal.message if refusal is not None else "the Job was not created"

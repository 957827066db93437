"""The two stages: settling an attempt that ended, following one that lives, starting the next.

`prepare` proves on a CPU that the training can work; `train` does it. A result counts only with its proof: the
digest of what was committed to S3, as the termination message reports it.
"""

from collections.abc import Sequence
from datetime import datetime

from pydantic import ValidationError

from finetune_api import artifacts, errors
from finetune_api.kinds.finetunejob import status
from finetune_api.kinds.finetunejob.spec import FineTuneJobSpec
from finetune_api.kinds.finetunejob.status import (
    Artifacts,
    Attempt,
    ConditionType,
    Failure,
    FineTuneJobStatus,
    MemoryStatus,
    Milestone,
    Reason,
)
from finetune_api.run import JobIdentity, PreparedReference, Stage, TerminationMessage
from finetune_operator.jobs import conditions
from finetune_operator.jobs import context as drafting
from finetune_operator.jobs.attempts import clock as attempts
from finetune_operator.jobs.attempts import outcome, waiting
from finetune_operator.jobs.attempts.outcome import End, Outcome
from finetune_operator.jobs.builders import job as job_builder
from finetune_operator.jobs.conditions import State, Verdict
from finetune_operator.jobs.context import Draft
from finetune_operator.jobs.observe import STUCK_AFTER, ChildJob, ChildPod
from finetune_operator.jobs.policies import deadlines, retries
from finetune_operator.runtime import logs
from finetune_operator.runtime.plan import CreateJob, Event, PatchJob, Plan

EVENTS_AFTER_SECONDS = 10
"""A Job without pods for that long asks for its Events: they alone say why (a choice; pods come within a second)."""
_MAX_EVENTS_PAUSE_SECONDS = 300


def build_failed(reason: Reason, message: str, remedy: str = "") -> Verdict:
    """End the run as failed."""
    return _fail(outcome.build_failure(reason, message, remedy))


def settle_attempt(draft: Draft) -> Verdict | None:
    """End the open attempt if it is over; return a verdict if the run is over with it."""
    attempt, child = draft.attempt, draft.child
    if attempt is None:
        return None
    is_condemned = attempt.cause == Milestone.SUSPENDED
    if child is not None and not child.is_owned:
        return build_failed(
            Reason.INTERNAL, f"Job {child.name} belongs to somebody else", "Delete it or choose another name."
        )
    result = _find_end(draft, attempt, child)
    if is_condemned and (child is None or result is not None) and (result is None or result.end is not End.COMPLETED):
        result = Outcome(End.UNCOUNTED, Milestone.SUSPENDED.value)
    if result is not None and result.message is not None and not _fits_status(draft, result.message):
        result = outcome.decide_unusable(attempt)
    return _apply_outcome(draft, result) if result is not None else None


def _find_end(draft: Draft, attempt: Attempt, child: ChildJob | None) -> Outcome | None:
    pods = draft.list_pods()
    if attempt.job_uid is not None and (child is None or child.uid != attempt.job_uid):
        return outcome.decide_deleted(attempt, pods)
    if child is None:
        return None
    if not child.is_finished:
        return outcome.find_overflow(pods)
    return outcome.decide_ended(attempt, child, pods, is_out_of_time=_is_out_of_time(draft, attempt, child))


def _is_out_of_time(draft: Draft, attempt: Attempt, child: ChildJob) -> bool:
    """Tell whether the run has used up its limits at the end of this Job, going by what was seen of it."""
    if draft.spec is None:
        return True
    policy, ended_at = draft.spec.run_policy, child.finished_at or draft.now
    since = attempts.find_running_since(draft.status)
    used = attempts.measure_active_seconds(attempt, since, draft.list_pods(), ended_at)
    is_long = deadlines.is_reached(policy.active_deadline_seconds, draft.status.active_seconds + used)
    if attempt.stage == Stage.PREPARE:
        is_long = is_long or deadlines.is_reached(draft.settings.prepare_deadline_seconds, used)
    # Nothing seen to run for so long: it waited too long, or ran unseen for as long.
    return is_long or deadlines.is_reached(
        policy.pending_deadline_seconds, _compute_pending_seconds(draft.status, ended_at)
    )


def await_completion(draft: Draft) -> Verdict | None:
    """Hold everything while a pod has committed its result and its Job is not complete, a moment later.

    What is committed counts: neither a limit nor the wish to suspend may end or stop the attempt now.
    """
    attempt, child = draft.attempt, draft.child
    if attempt is None or child is None or attempt.cause == Milestone.SUSPENDED:
        return None
    if outcome.find_success(attempt, draft.list_pods()) is None:
        return None
    draft.running_since = attempts.find_running_since(draft.status)
    return Verdict(State.RUNNING, f"attempt {attempt.number} has its result; Job {child.name} is being completed")


def track_attempt(draft: Draft) -> None:
    """Record what the live attempt's pods do: the Job's uid, since when one runs or none does, and why."""
    attempt, child = draft.attempt, draft.child
    if attempt is None or child is None:
        return
    if attempt.job_uid is None:
        draft.update_attempt(job_uid=child.uid)
    pods = draft.list_pods()
    since = attempts.find_running_since(draft.status)
    running = next((pod for pod in reversed(pods) if pod.is_running(draft.now)), None)
    if running is not None and running.started_at is not None:
        if since is not None and running.started_at > since:
            _close_stretch(draft, child, since, running)
            since = running.started_at
        draft.running_since = since or running.started_at
        draft.update(pending_since=None)
        if attempt.start_time is None:
            draft.update_attempt(start_time=status.build_time(running.started_at))
        return
    draft.wait = waiting.describe_wait(child, pods, draft.now, draft.settings.unschedulable_grace_seconds)
    if since is not None:
        draft.update_attempt(active_seconds=attempts.measure_active_seconds(attempt, since, pods, draft.now))
        draft.update(pending_since=status.build_time(draft.now))
        _tell_interruption(draft, child)
        return
    # A pod that ran while nobody looked has ended the wait before it.
    ended = max((pod.finished_at for pod in pods if pod.finished_at is not None), default=None)
    waiting_since = status.parse_time(draft.status.pending_since) if draft.status.pending_since else None
    if ended is not None and waiting_since is not None and waiting_since < ended <= draft.now:
        draft.update(pending_since=status.build_time(ended))


def _close_stretch(draft: Draft, child: ChildJob, since: datetime, running: ChildPod) -> None:
    """End the running time of a pod that was replaced between two passes: its successor's wait is none."""
    attempt = draft.status.attempts[-1]
    others = [pod for pod in draft.list_pods() if pod != running]
    # A pod that is gone ended when its successor was made, at the latest.
    ends = [pod.finished_at for pod in others if pod.finished_at is not None and pod.finished_at >= since]
    ended_at = min([*ends, running.created_at])
    seconds = attempt.active_seconds + deadlines.compute_elapsed_seconds(since, ended_at)
    draft.update_attempt(active_seconds=seconds)
    _tell_interruption(draft, child)


def follow_attempt(draft: Draft, spec: FineTuneJobSpec, attempt: Attempt, child: ChildJob) -> Verdict:
    """Say where the live attempt stands, and when time alone may change that."""
    limit = _compute_job_deadline(draft, spec, Stage(attempt.stage))
    if child.active_deadline_seconds != limit and not child.is_deleting:
        draft.actions.append(PatchJob(child.name, child.uid, {"activeDeadlineSeconds": limit}))
    if draft.wait is None:
        text = f"attempt {attempt.number} of stage {attempt.stage} runs"
        limits = [_find_running_limit(draft, spec, attempt), *_list_stuck_limits(draft, draft.list_pods())]
        return Verdict(State.RUNNING, text, requeue_after=min(limits))
    wait = draft.wait
    state = State.QUEUED if wait.is_queued else State.PENDING
    return Verdict(
        state, wait.message, str(wait.reason), wait.is_stalled, requeue_after=_find_waiting_limit(draft, spec, child)
    )


def await_removal(draft: Draft, spec: FineTuneJobSpec) -> Verdict:
    """Wait for the pods of former attempts, as long as for any other pod."""
    draft.update(pending_since=draft.status.pending_since or status.build_time(draft.now))
    limit = spec.run_policy.pending_deadline_seconds
    waits = [deadlines.compute_wait_seconds(limit, _compute_pending_seconds(draft.status, draft.now))]
    text = "waiting until the pods of the former attempt are gone"
    stuck = drafting.find_stuck_pod(draft)
    if stuck:
        reason = Milestone.NODE_UNREACHABLE.value
        return Verdict(State.PENDING, f"{text}: {stuck}", reason, is_stalled=True, requeue_after=waits[0])
    waits += _list_stuck_limits(draft, draft.list_remaining_pods())
    return Verdict(State.PENDING, text, requeue_after=min(waits))


def _list_stuck_limits(draft: Draft, pods: Sequence[ChildPod]) -> list[float]:
    """Return in how many seconds pods on their way out will be overdue."""
    due = [pod.removal_due_at for pod in pods if pod.removal_due_at is not None and not pod.is_terminal]
    waits = [(moment + STUCK_AFTER - draft.now).total_seconds() + 1 for moment in due]
    return [seconds for seconds in waits if seconds > 0]


def start_attempt(draft: Draft, spec: FineTuneJobSpec) -> Verdict:
    """Begin the next attempt, or finish beginning one whose Job was never made."""
    current, job = draft.status, draft.job
    stage = Stage.PREPARE if current.prepared_sha256 is None else Stage.TRAIN
    is_new = draft.attempt is None
    if is_new:
        draft.status = attempts.begin(current, stage, job.name, job.uid)
        moment = status.build_time(draft.now)
        draft.update(pending_since=moment, start_time=current.start_time or moment)
    # The run digest names the image: an upgrade of the operator between two attempts must not change it.
    image = current.trainer_image or spec.trainer.image or draft.settings.trainer_image
    draft.update(trainer_image=image)
    attempt = draft.status.attempts[-1]
    try:
        manifest = job_builder.build_job(
            JobIdentity(namespace=job.namespace, name=job.name, uid=job.uid, attempt=attempt.number),
            spec,
            stage,
            image=image,
            prepared=_build_prepared(draft.status) if stage is Stage.TRAIN else None,
            deadline_seconds=_compute_job_deadline(draft, spec, stage),
            settings=draft.settings,
        )
    except errors.ConfigError as error:
        return build_failed(Reason.CONFIG_ERROR, error.message, error.remedy)
    draft.actions.append(CreateJob(manifest))
    if is_new:
        draft.tell(Milestone.JOB_CREATED, f"attempt {attempt.number} of stage {stage}: Job {attempt.job}")
    # Refused before, the run stays stalled until a try succeeds: it would flicker with every try.
    return _find_refused_create(current, attempt) or Verdict(State.PENDING, f"Job {attempt.job} is being created")


def record_refused_create(current: FineTuneJobStatus, *, code: int, text: str, generation: int, now: datetime) -> Plan:
    """Say in the status that the API server refuses the open attempt's Job, once per reason.

    The run is stalled by it, unless only time is missing; the next refusal may say otherwise.

    Args:
        current: status with the open attempt, as it was just written.
        code: HTTP status of the refusal.
        text: what the API server said; a webhook may have put anything into it.
    """
    attempt = current.attempts[-1]
    reason, is_stalled = waiting.classify_refusal(code, text), not waiting.is_uncounted_quota(text)
    before = _find_refused_create(current, attempt)
    if before is not None and (before.reason, before.is_stalled) == (reason, is_stalled):
        return Plan(current)
    message = status.build_message(f"{_refused_prefix(attempt)}{logs.scrub_text(text)}")
    verdict = Verdict(State.PENDING, message, reason.value, is_stalled=is_stalled)
    changed = conditions.apply_verdict(current, verdict, generation=generation, now=now)
    events = (Event(reason.value, message, is_warning=True),) if is_stalled else ()
    return Plan(current.model_copy(update={"conditions": changed}), events=events)


def describe_pending(draft: Draft) -> str:
    """Say why no pod runs."""
    if draft.wait is not None:
        return draft.wait.message
    if draft.attempt is None:
        return "the pods of the former attempt are still there"
    refused = _find_refused_create(draft.status, draft.attempt)
    return refused.message if refused is not None else "the Job was not created"


def _find_refused_create(current: FineTuneJobStatus, attempt: Attempt) -> Verdict | None:
    ready = status.find_condition(current.conditions, ConditionType.READY)
    stalled = status.find_condition(current.conditions, ConditionType.STALLED)
    if ready is None or stalled is None or not ready.message.startswith(_refused_prefix(attempt)):
        return None
    if stalled.status == "True":
        return Verdict(State.PENDING, stalled.message, stalled.reason, is_stalled=True)
    # The only refusal that doesn't stall a run is that of a quota which isn't counted yet.
    return Verdict(State.PENDING, ready.message, Reason.QUOTA_EXCEEDED.value)


def _refused_prefix(attempt: Attempt) -> str:
    return f"Job {attempt.job} can't be created: "


def measure_run_seconds(draft: Draft) -> int:
    """Return the running time of all attempts until now."""
    attempt = draft.attempt
    if attempt is None:
        return draft.status.active_seconds
    return draft.status.active_seconds + _measure_attempt_seconds(draft, attempt)


def _measure_attempt_seconds(draft: Draft, attempt: Attempt) -> int:
    return attempts.measure_active_seconds(attempt, draft.running_since, draft.list_pods(), draft.now)


def is_prepare_overdue(draft: Draft) -> bool:
    """Tell whether the prepare attempt has used up its own limit."""
    attempt = draft.attempt
    if attempt is None or attempt.stage != Stage.PREPARE:
        return False
    return deadlines.is_reached(draft.settings.prepare_deadline_seconds, _measure_attempt_seconds(draft, attempt))


def end_attempt(draft: Draft, cause: str) -> None:
    """End the open attempt, if there is one, without counting it."""
    if draft.attempt is not None:
        _end_attempt(draft, cause, is_counted=False)


def _apply_outcome(draft: Draft, result: Outcome) -> Verdict | None:
    """Write the end of an attempt into the status; return a verdict if the run ends with it."""
    stage = Stage(draft.status.attempts[-1].stage)
    _end_attempt(draft, result.cause, is_counted=result.end is End.COUNTED)
    if result.end is End.COMPLETED and result.message is not None:
        draft.update(**_read_result(draft, result.message))
        return _accept_trained(draft, result.message) if stage is Stage.TRAIN else None
    failure = result.failure
    if failure is None:
        return None
    if result.end is End.FINAL:
        return _fail(failure)
    draft.failure_text = failure.message
    kind = {Reason.OUT_OF_MEMORY: "oom", Reason.POD_DISRUPTED: "disruption"}.get(failure.reason, "error")
    draft.attempt_ends.append(kind)
    limit = draft.spec.run_policy.backoff_limit if draft.spec is not None else 0
    if result.end is End.COUNTED and retries.is_spent(draft.status.failed_attempts, limit):
        return _fail(_build_spent_failure(draft.status, failure))
    draft.tell(Milestone.ATTEMPT_FAILED, f"{failure.reason}: {failure.message}", is_warning=True)
    return None


def _build_spent_failure(current: FineTuneJobStatus, last: Failure) -> Failure:
    causes = [item.cause for item in current.attempts if item.counted and item.cause]
    reason = retries.decide_final_reason(causes, last.reason)
    count = current.failed_attempts
    text = f"{count} attempts failed, the last one: {last.message}" if count > 1 else last.message
    return outcome.build_failure(reason, text, last.remedy, last.exit_code)


def _end_attempt(draft: Draft, cause: str, *, is_counted: bool) -> None:
    attempt, child = draft.status.attempts[-1], draft.child
    pods = draft.list_pods()
    since = attempts.find_running_since(draft.status)
    started = [pod.started_at for pod in pods if pod.started_at is not None]
    if attempt.start_time is None and started:
        draft.update_attempt(start_time=status.build_time(min(started)))
    if attempt.job_uid is None and child is not None:
        draft.update_attempt(job_uid=child.uid)
    # By the clock of the control plane, which may go ahead of ours: the pause after it must not grow by that.
    ended_at = min((child.finished_at if child is not None else None) or draft.now, draft.now)
    draft.status = attempts.end(
        draft.status,
        cause=str(cause),
        is_counted=is_counted,
        ended_at=ended_at,
        active_seconds=attempts.measure_active_seconds(attempt, since, pods, ended_at),
    )
    draft.update(pending_since=None)


def _fits_status(draft: Draft, message: TerminationMessage) -> bool:
    """Tell whether the API server would take what the message says; every later patch would fail with it."""
    changed = draft.status.model_copy(update=_read_result(draft, message))
    try:
        FineTuneJobStatus.model_validate(changed.model_dump(mode="json"))
    except ValidationError:
        return False
    return True


def _read_result(draft: Draft, message: TerminationMessage) -> dict[str, object]:
    """Return the fields of the status that the message of a stage that worked sets."""
    current = draft.status
    changes: dict[str, object] = {
        "memory": _merge_memory(current.memory, message.memory),
        "resolved": dict(current.resolved) | dict(message.resolved),
        "warnings": _merge_warnings(current, message),
    }
    if message.stage is Stage.PREPARE:
        return changes | {
            "prepared_attempt": message.attempt,
            "prepared_sha256": message.prepared_sha256,
            "run_digest": message.run_digest,
            "data": message.data,
        }
    layout = artifacts.build_run_layout(draft.spec.output.uri if draft.spec else "", draft.job.uid)
    uri = message.artifacts_uri or f"{layout.model(message.attempt)}/"
    digest = message.manifest_sha256 or ""
    found = Artifacts(uri=uri, manifest_uri=str(layout.manifest), manifest_sha256=digest)
    return changes | {"artifacts": found, "metrics": message.metrics}


def _accept_trained(draft: Draft, message: TerminationMessage) -> Verdict:
    draft.final_step = message.step
    uri = draft.status.artifacts.uri if draft.status.artifacts is not None else ""
    return Verdict(State.SUCCEEDED, f"the tuned model lies in {uri}", str(message.reason))


def _merge_memory(old: MemoryStatus | None, new: MemoryStatus | None) -> MemoryStatus | None:
    if old is None or new is None:
        return new or old
    return old.model_copy(update=new.model_dump(by_alias=False, exclude_none=True))


def _merge_warnings(current: FineTuneJobStatus, message: TerminationMessage) -> list[str]:
    added = [logs.scrub_text(text) for text in message.warnings]
    texts = [status.build_message(text) for text in (*current.warnings, *added)]
    return list(dict.fromkeys(texts))[: status.MAX_WARNINGS]


def _build_prepared(current: FineTuneJobStatus) -> PreparedReference:
    return PreparedReference(attempt=current.prepared_attempt or 1, sha256=current.prepared_sha256 or "")


def _compute_job_deadline(draft: Draft, spec: FineTuneJobSpec, stage: Stage) -> int:
    policy = spec.run_policy
    left = policy.active_deadline_seconds - draft.status.active_seconds
    if stage is Stage.PREPARE:
        left = min(left, draft.settings.prepare_deadline_seconds)
    return deadlines.compute_job_deadline_seconds(left, policy.pending_deadline_seconds)


def _find_running_limit(draft: Draft, spec: FineTuneJobSpec, attempt: Attempt) -> float:
    left = deadlines.compute_wait_seconds(spec.run_policy.active_deadline_seconds, measure_run_seconds(draft))
    if attempt.stage != Stage.PREPARE:
        return left
    used = _measure_attempt_seconds(draft, attempt)
    return min(left, deadlines.compute_wait_seconds(draft.settings.prepare_deadline_seconds, used))


def _find_waiting_limit(draft: Draft, spec: FineTuneJobSpec, child: ChildJob) -> float:
    pending = _compute_pending_seconds(draft.status, draft.now)
    candidates = [deadlines.compute_wait_seconds(spec.run_policy.pending_deadline_seconds, pending)]
    if draft.wait is not None and draft.wait.stalls_at is not None:
        candidates.append((draft.wait.stalls_at - draft.now).total_seconds())
    if not draft.list_pods() and not child.is_suspended:
        # Its pod is told by the watch; what is asked for is why there is none, and the longer it waits the less often.
        candidates.append(float(min(max(EVENTS_AFTER_SECONDS, pending / 2), _MAX_EVENTS_PAUSE_SECONDS)))
    return min(candidates)


def _compute_pending_seconds(current: FineTuneJobStatus, now: datetime) -> int:
    since = status.parse_time(current.pending_since) if current.pending_since else None
    return deadlines.compute_elapsed_seconds(since, now)


def is_pending_overdue(draft: Draft, spec: FineTuneJobSpec) -> bool:
    """Tell whether no pod ran for longer than the user wants to wait."""
    if draft.running_since is not None or draft.status.pending_since is None:
        return False
    pending = _compute_pending_seconds(draft.status, draft.now)
    return deadlines.is_reached(spec.run_policy.pending_deadline_seconds, pending)


def _tell_interruption(draft: Draft, child: ChildJob) -> None:
    """Tell why a pod that ran is gone while its Job goes on; other ends are told when the Job has ended."""
    disrupted = next((pod for pod in reversed(draft.list_pods()) if pod.disruption), None)
    if child.is_suspended:
        draft.attempt_ends.append("preempted")
        draft.tell(Milestone.PREEMPTED, f"the queue took the place of Job {child.name} back", is_warning=True)
    elif disrupted is not None:
        draft.attempt_ends.append("disruption")
        draft.tell(Reason.POD_DISRUPTED, f"pod {disrupted.name}: {disrupted.disruption}", is_warning=True)


def _fail(failure: Failure) -> Verdict:
    return Verdict(State.FAILED, failure.message, failure.reason.value, failure=failure)

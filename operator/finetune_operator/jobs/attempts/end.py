"""The end of an attempt: what it was, what of it the status keeps, and whether the run ends with it.

A result counts only with its proof: the digest of what was committed to S3, as the termination message reports it.
"""

from pydantic import ValidationError

from finetune_api import artifacts, quantities, wording
from finetune_api.kinds import status_fields
from finetune_api.kinds.attempts import MAX_ATTEMPT_MESSAGE_LENGTH, Attempt
from finetune_api.kinds.finetunejob.status import Artifacts, Failure, FineTuneJobStatus, MemoryStatus, Milestone, Reason
from finetune_api.run import Stage, TerminationMessage
from finetune_operator.jobs import failures, reports
from finetune_operator.jobs.attempts import clock, deadlines, outcome
from finetune_operator.jobs.attempts.outcome import End, Outcome
from finetune_operator.jobs.conditions import Result, State
from finetune_operator.jobs.context import Context
from finetune_operator.jobs.observe import ChildJob
from finetune_operator.jobs.policies import retries
from finetune_operator.runtime import logs


def end_if_over(context: Context) -> Result | None:
    """End the open attempt if it is over; return a result if the run is over with it."""
    attempt, child = context.attempt, context.child
    if attempt is None:
        return None
    is_stopping = attempt.cause == Milestone.SUSPENDED
    if child is not None and not child.is_owned:
        return failures.build_failed(
            Reason.INTERNAL, f"Job {child.name} belongs to somebody else", "Delete it or choose another name."
        )
    found = _find_outcome(context, attempt, child)
    if is_stopping and (child is None or found is not None) and (found is None or found.end is not End.COMPLETED):
        found = Outcome(End.UNCOUNTED, Milestone.SUSPENDED.value)
    if found is not None and found.message is not None:
        problem = _find_problem(context, found.message)
        found = outcome.decide_unusable(attempt, problem) if problem else found
    return _apply_outcome(context, found) if found is not None else None


def end_uncounted(context: Context, cause: str) -> None:
    """End the open attempt, if there is one, without counting it."""
    if context.attempt is not None:
        _end(context, cause, is_counted=False)


def _find_outcome(context: Context, attempt: Attempt, child: ChildJob | None) -> Outcome | None:
    pods = context.list_pods()
    if attempt.job_uid is not None and (child is None or child.uid != attempt.job_uid):
        return outcome.decide_deleted(attempt, pods)
    if child is None:
        return None
    if not child.is_finished:
        return outcome.find_overflow(pods) or outcome.decide_incomplete(child, pods, attempt, context.now)
    return outcome.decide_ended(
        attempt,
        child,
        pods,
        is_out_of_time=deadlines.is_out_of_time(context, attempt, child),
        is_lost_again=[item.cause for item in context.status.attempts[-2:-1]] == [Milestone.MESSAGE_LOST],
        memory_remedy=_build_memory_remedy(context, Stage(attempt.stage)),
    )


def _build_memory_remedy(context: Context, stage: Stage) -> str:
    """Name what limits the memory of a stage's pod."""
    spec = context.spec
    if spec is None or stage is Stage.TRAIN:
        return ""
    wanted, most = spec.resources.memory, context.settings.prepare_memory
    if quantities.parse_quantity(wanted) <= quantities.parse_quantity(most):
        return f"Create a new FineTuneJob with more spec.resources.memory than {wanted}, or with less data."
    return (
        f"Give the prepare stage more memory than {most}: the chart's value prepare.memory (FINETUNE_PREPARE_MEMORY), "
        "which an administrator sets; or create a new FineTuneJob with less data."
    )


def _apply_outcome(context: Context, found: Outcome) -> Result | None:
    """Write the end of an attempt into the status; return a result if the run ends with it."""
    stage = Stage(context.status.attempts[-1].stage)
    text = found.failure.message if found.failure is not None else ""
    is_told = _is_interruption_told(context)
    _end(context, found.cause, is_counted=found.end is End.COUNTED, message=text)
    if found.end is End.COMPLETED and found.message is not None:
        context.update(**_read_message(context, found.message))
        context.add_warnings(found.message.warnings)
        return _accept_trained(context, found.message) if stage is Stage.TRAIN else None
    return _judge_failure(context, found, is_told=is_told) if found.failure is not None else None


def _is_interruption_told(context: Context) -> bool:
    """Tell whether a pass before has seen that the pod which ran last is gone."""
    return bool(context.status.attempts[-1].active_seconds) and clock.find_running_since(context.status) is None


def _judge_failure(context: Context, found: Outcome, *, is_told: bool) -> Result | None:
    failure = found.failure
    if failure is None or found.end is End.FINAL:
        return failures.fail(failure) if failure is not None else None
    kind = {Reason.OUT_OF_MEMORY: "oom", Reason.POD_DISRUPTED: "disruption"}.get(failure.reason, "error")
    context.attempt_ends.append(kind)
    if found.end is End.UNCOUNTED and failure.reason is Reason.POD_DISRUPTED and not is_told:
        context.update(preemption_count=context.status.preemption_count + 1)
    limit = context.spec.run_policy.backoff_limit if context.spec is not None else 0
    if found.end is End.COUNTED and retries.is_spent(context.status.failed_attempts, limit):
        return failures.fail(_build_spent_failure(context.status, failure))
    context.record_event(Milestone.ATTEMPT_FAILED, f"{failure.reason}: {failure.message}", is_warning=True)
    return None


def _build_spent_failure(current: FineTuneJobStatus, last: Failure) -> Failure:
    causes = [item.cause for item in current.attempts if item.counted and item.cause]
    reason = retries.decide_final_reason(causes, last.reason)
    count = current.failed_attempts
    text = f"{count} attempts failed, the last one: {last.message}" if count > 1 else last.message
    return failures.build_failure(reason, text, last.remedy, last.exit_code)


def _end(context: Context, cause: str, *, is_counted: bool, message: str = "") -> None:
    attempt, child = context.status.attempts[-1], context.child
    pods = context.list_pods()
    since = clock.find_running_since(context.status)
    started = [pod.started_at for pod in pods if pod.started_at is not None]
    if attempt.start_time is None and started:
        context.update_attempt(start_time=status_fields.build_time(min(started)))
    if attempt.job_uid is None and child is not None:
        context.update_attempt(job_uid=child.uid)
    # By the clock of the control plane, which may go ahead of ours: the pause after it must not grow by that.
    ended_at = min((child.finished_at if child is not None else None) or context.now, context.now)
    kept = wording.cut(message, MAX_ATTEMPT_MESSAGE_LENGTH) or None
    context.update_attempt(message=kept, refusal=None)
    context.status = clock.end(
        context.status,
        cause=str(cause),
        is_counted=is_counted,
        ended_at=ended_at,
        active_seconds=clock.measure_active_seconds(attempt, since, pods, ended_at),
    )
    context.update(pending_since=None)


def _find_problem(context: Context, message: TerminationMessage) -> str:
    """Say why a message can't be kept: an address outside of the run, or values the API server would refuse."""
    layout = artifacts.build_run_layout(context.spec.output.uri if context.spec else "", context.job.uid)
    addresses = {"artifactsURI": message.artifacts_uri, "reportURI": message.data.report_uri if message.data else None}
    for name, uri in addresses.items():
        if uri is not None and not layout.is_inside(uri):
            return f"says {name} {wording.show_value(uri)}, which is outside of {layout.run}/"
    changed = context.status.model_copy(update=_read_message(context, message))
    try:
        # Every later patch would fail with it.
        FineTuneJobStatus.model_validate(changed.model_dump(mode="json"))
    except ValidationError:
        return "has values that the status can't hold"
    return ""


def _read_message(context: Context, message: TerminationMessage) -> dict[str, object]:
    """Return the fields of the status that the message of a stage that worked sets."""
    current = context.status
    changes: dict[str, object] = {
        "memory": _merge_memory(current.memory, message.memory),
        "resolved": dict(current.resolved) | {key: logs.scrub_text(value) for key, value in message.resolved.items()},
    }
    if message.stage is Stage.PREPARE:
        return changes | {
            "prepared_attempt": message.attempt,
            "prepared_sha256": message.prepared_sha256,
            "run_digest": message.run_digest,
            "data": message.data,
        }
    layout = artifacts.build_run_layout(context.spec.output.uri if context.spec else "", context.job.uid)
    uri = message.artifacts_uri or f"{layout.attempts}/{message.attempt}/"
    digest = message.manifest_sha256 or ""
    found = Artifacts(uri=uri, manifest_uri=str(layout.manifest), manifest_sha256=digest)
    is_kept = context.spec is not None and context.spec.run_policy.checkpoint.keep_after_success
    # What was cut from a long message: after a success they are deleted.
    left: dict[str, object] = {} if is_kept or message.checkpoints is not None else {"checkpoints": []}
    metrics = message.metrics and message.metrics.model_copy(
        update={
            "base": reports.scrub_metrics(message.metrics.base),
            "tuned": reports.scrub_metrics(message.metrics.tuned),
        }
    )
    return changes | {"artifacts": found, "metrics": metrics, **left}


def _accept_trained(context: Context, message: TerminationMessage) -> Result:
    context.final_step = message.step
    uri = context.status.artifacts.uri if context.status.artifacts is not None else ""
    return Result(State.SUCCEEDED, f"the tuned model lies in {uri}", str(message.reason))


def _merge_memory(old: MemoryStatus | None, new: MemoryStatus | None) -> MemoryStatus | None:
    if old is None or new is None:
        return new or old
    return old.model_copy(update=new.model_dump(by_alias=False, exclude_none=True))

"""The order in which a FineTuneJob is looked at: the whole controller as one paragraph.

Pure: a FineTuneJob, its children as just read, the time and the settings in; a Plan out. It is called again whenever
anything changes, keeps nothing between two calls and may be cut off anywhere: names are deterministic, an attempt
stands in the status before its Job exists, and a finished run never gets a child again.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from pydantic import ValidationError

from finetune_api import validation, wording
from finetune_api.kinds import status_conditions, status_fields
from finetune_api.kinds.finetunejob.spec import FineTuneJobSpec
from finetune_api.kinds.finetunejob.status import ConditionType, FineTuneJobStatus, Milestone, Reason
from finetune_operator.jobs import cleanup, conditions, display, failures, progress, transitions
from finetune_operator.jobs.attempts import deadlines, end, follow, reports, resumption, start
from finetune_operator.jobs.conditions import Facts, Result, State
from finetune_operator.jobs.context import Context
from finetune_operator.jobs.observe import FineTuneJob, Observed
from finetune_operator.jobs.policies import admission, retries, suspend
from finetune_operator.jobs.policies.suspend import Step
from finetune_operator.runtime import merge_patch
from finetune_operator.runtime.plan import Action, DeleteJob, Manifest, Plan
from finetune_operator.settings import Settings

_NEWER_CRD_ERRORS = frozenset({"extra_forbidden", "enum", "literal_error"})
"""Errors of pydantic for fields and values that only a newer CRD lets pass."""


def plan_job(job: FineTuneJob, observed: Observed, now: datetime, settings: Settings) -> Plan:
    """Decide everything that is to be done about one FineTuneJob now."""
    # Garbage collection removes the children of an object on its way out.
    if job.is_deleting:
        return _build_plan(job, job.status)
    # A finished run never trains again, whatever is missing: only its remains are cleared away.
    if status_conditions.is_true(job.status.conditions, ConditionType.FINISHED):
        # `kubectl wait` takes no condition for true that has seen an older generation than the object's.
        seen = [item.model_copy(update={"observed_generation": job.generation}) for item in job.status.conditions]
        current = job.status.model_copy(update={"observed_generation": job.generation, "conditions": seen})
        return _build_plan(job, current, cleanup.build_cleanup(job, observed))
    context = Context(job, observed, now, settings, job.status)
    result = _decide(context)
    if result.state is State.FAILED:
        end.end_uncounted(context, result.reason)
    _complete(context, result)
    plan = _build_plan(job, context.status, context.actions)
    return replace(
        plan,
        events=tuple(context.events),
        requeue_after=result.requeue_after,
        attempt_ends=tuple(context.attempt_ends),
        endpoint=reports.find_endpoint(context) if result.state is State.RUNNING else None,
    )


def build_status_manifest(current: FineTuneJobStatus) -> Manifest:
    """Write a status as the API server stores it: without what is absent or empty."""
    data = current.model_dump(mode="json", exclude_none=True)
    return {key: value for key, value in data.items() if value not in ([], {})}


def _build_plan(job: FineTuneJob, wanted: FineTuneJobStatus, actions: Sequence[Action] = ()) -> Plan:
    stored = build_status_manifest(wanted)
    patch = merge_patch.build_merge_patch(build_status_manifest(job.status), stored)
    return Plan(stored, patch, tuple(actions))


def _complete(context: Context, result: Result) -> None:
    """Complete the status with what follows from the result, and the Events with what became true."""
    child = context.child
    is_finished = result.state in (State.SUCCEEDED, State.FAILED)
    facts = Facts(
        has_job=child is not None and child.is_owned,
        is_held=child is not None and child.is_suspended,
        running_since=None if is_finished else context.running_since,
        stuck_pod=context.find_stuck_pod(),
    )
    if is_finished:
        context.update(
            failure=result.failure, completion_time=status_fields.build_time(context.now), pending_since=None
        )
        context.actions = cleanup.build_cleanup(context.job, context.observed)
    generation = context.job.generation
    built = conditions.build_conditions(context.status, result, facts, generation=generation, now=context.now)
    context.update(observed_generation=generation, conditions=built)
    context.update(
        progress=progress.build_progress(context, result),
        phase=display.derive_phase(built),
        reason=display.derive_reason(built),
        metric=display.derive_metric(context.status),
    )
    transitions.record_transitions(context, result)


def _decide(context: Context) -> Result:
    # What can't run is refused before anything is created.
    spec, refusal = _parse_spec(context)
    if spec is None or refusal is not None:
        return refusal or failures.build_failed(Reason.INVALID_SPEC, "spec can't be read")
    context.spec = spec
    # What a pod told at its end is taken over before anything is said of it.
    reports.read_end(context)
    # An attempt that is over is ended first: its result counts, whatever else is asked for meanwhile.
    result = end.end_if_over(context) or follow.await_completion(context)
    if result is not None:
        return result
    # What the pods do is written down before anything is judged by it.
    follow.record_pods(context)
    reports.read_answer(context)
    # Limits end the run wherever it stands, then the user's wish to pause it holds.
    result = deadlines.enforce_deadlines(context, spec) or _suspend(context, spec)
    if result is not None:
        return result
    # Jobs of former attempts must not run beside the current one.
    is_clear = _remove_leftovers(context)
    attempt, child = context.attempt, context.child
    if attempt is not None and child is not None:
        return follow.follow_attempt(context, spec, attempt, child)
    if not is_clear:
        return follow.await_removal(context, spec)
    # Nothing runs: the next attempt begins, after a pause if the last one failed. The pause is no waiting for a pod.
    if attempt is None:
        context.update(pending_since=None)
        # Also right after an attempt that this operator had taken over.
        _, refusal = _parse_spec(context)
    if not context.status.attempts and refusal is None:
        _warn_of_peers(context, spec)
    return refusal or _back_off(context) or start.start_attempt(context, spec)


def _warn_of_peers(context: Context, spec: FineTuneJobSpec) -> None:
    """Say whose published run this one will replace, or be replaced by."""
    peers = [f"{namespace}/{name}" for namespace, name in context.observed.peers]
    if not peers:
        return
    text = (
        f"spec.output.uri ({wording.show_value(spec.output.uri)}) is also that of {wording.join_names(peers)}: "
        "its current.json names the run that finishes last, and replaces theirs"
    )
    context.add_warnings([text])
    context.record_event(Milestone.OUTPUT_SHARED, text, is_warning=True)


def _parse_spec(context: Context) -> tuple[FineTuneJobSpec | None, Result | None]:
    """Read the spec; rules are applied before an attempt begins, never to one that lives."""
    raw = dict(context.job.spec)
    try:
        spec = FineTuneJobSpec.model_validate(raw)
    except ValidationError as error:
        text = "; ".join(str(item) for item in validation.parse_errors(error, "spec", FineTuneJobSpec))
        kinds = {detail["type"] for detail in error.errors()}
        if not kinds <= _NEWER_CRD_ERRORS:
            return None, failures.build_failed(Reason.INVALID_SPEC, text)
        # The CRD is newer than this operator: what it doesn't know must neither be ignored nor end the run.
        message = f"this operator is older than the CRD: {text}; upgrade the operator"
        older = Result(State.PENDING, message, Reason.INVALID_SPEC, is_stalled=True)
        if kinds != {"extra_forbidden"}:
            return None, older
        spec = FineTuneJobSpec.model_validate(raw, extra="ignore")
        if context.attempt is None:
            return spec, older
    if context.attempt is not None:
        return spec, None
    return spec, _find_refusal(context, spec)


def _find_refusal(context: Context, spec: FineTuneJobSpec) -> Result | None:
    settings = context.settings
    if not context.status.attempts and (found := validation.validate_spec(spec)):
        return failures.build_failed(Reason.INVALID_SPEC, "; ".join(str(item) for item in found))
    refused = admission.find_refusals(spec, recorded_image=context.status.trainer_image or "", settings=settings)
    if refused:
        return failures.build_failed(Reason.CONFIG_ERROR, "; ".join(str(item) for item in refused))
    return None


def _suspend(context: Context, spec: FineTuneJobSpec) -> Result | None:
    attempt, child = context.attempt, context.child
    step = suspend.decide_step(
        is_wanted=spec.run_policy.suspend,
        is_stopping=attempt is not None and attempt.cause == Milestone.SUSPENDED,
        has_job=child is not None,
        is_job_deleting=child is not None and child.is_deleting,
    )
    if step is Step.GO_ON:
        _record_resumption(context)
        return None
    if step is Step.HOLD:
        end.end_uncounted(context, Milestone.SUSPENDED)
        context.update(pending_since=None)
        if not _remove_leftovers(context):
            return Result(State.STOPPING, "waiting until the pods of the last attempt are gone")
        begin = resumption.describe_begin(context.status)
        return Result(State.SUSPENDED, f"runPolicy.suspend is true; set it to false to go on{begin}")
    # The status says that the attempt is being stopped before its Job is deleted: its end is then nobody's failure.
    context.update_attempt(cause=Milestone.SUSPENDED.value)
    if step is Step.STOP and child is not None:
        context.actions.append(DeleteJob(child.name, child.uid))
    if not spec.run_policy.suspend:
        # Taken back while the pods end: what runs next waits for them, as long as for any other pod.
        return follow.await_removal(context, spec)
    context.update(pending_since=None)
    text = "runPolicy.suspend is true; the pods are being stopped"
    return Result(State.STOPPING, f"{text}{resumption.describe_stop(context)}")


def _record_resumption(context: Context) -> None:
    before = status_conditions.find_condition(context.status.conditions, ConditionType.SUSPENDED)
    if before is not None and before.status == "True" and before.reason == Milestone.USER_REQUESTED:
        begin = resumption.describe_begin(context.status)
        context.record_event(Milestone.RESUMED, f"runPolicy.suspend was taken back{begin or '; the run goes on'}")


def _remove_leftovers(context: Context) -> bool:
    """Delete live Jobs of former attempts; return whether all of them and their pods are gone."""
    current = context.child
    others = [job for job in context.observed.jobs if job.is_owned and not job.is_finished and job != current]
    context.actions += [DeleteJob(job.name, job.uid) for job in others if not job.is_deleting]
    return not others and all(
        current is not None and pod.job_uid == current.uid for pod in context.list_remaining_pods()
    )


def _back_off(context: Context) -> Result | None:
    last = context.status.attempts[-1] if context.status.attempts else None
    if last is None or last.end_time is None or not _needs_pause(last.cause):
        return None
    retry_at = retries.compute_retry_time(
        status_fields.parse_time(last.end_time),
        context.status.failed_attempts,
        is_counted=last.counted,
        uid=context.job.uid,
        attempt=last.number,
    )
    if context.now >= retry_at:
        return None
    text = f"the next attempt begins at {status_fields.build_time(retry_at)}, after: {last.message or last.cause}"
    wait = (retry_at - context.now).total_seconds()
    return Result(State.RETRYING, text, Milestone.RETRYING, requeue_after=wait)


def _needs_pause(cause: str | None) -> bool:
    return cause not in (Milestone.SUSPENDED, Milestone.COMPLETED, Milestone.EARLY_STOPPED)

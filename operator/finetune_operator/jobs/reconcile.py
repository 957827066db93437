"""The order in which a FineTuneJob is looked at: the whole controller as one paragraph.

Pure: a FineTuneJob, its children as just read, the time and the settings in; a Plan out. It is called again whenever
anything changes, keeps nothing between two calls and may be cut off anywhere: names are deterministic, an attempt
stands in the status before its Job exists, and a finished run never gets a child again.
"""

from datetime import datetime

from pydantic import ValidationError

from finetune_api import validation
from finetune_api.kinds.finetunejob import status
from finetune_api.kinds.finetunejob.spec import FineTuneJobSpec
from finetune_api.kinds.finetunejob.status import ConditionType, Milestone, Reason
from finetune_operator.jobs import context as drafting
from finetune_operator.jobs.attempts import stages
from finetune_operator.jobs.conditions import State, Verdict
from finetune_operator.jobs.context import Draft
from finetune_operator.jobs.observe import FineTuneJob, Observed
from finetune_operator.jobs.policies import admission, deadlines, retries, suspend
from finetune_operator.jobs.policies.suspend import Step
from finetune_operator.runtime.plan import DeleteJob, Plan
from finetune_operator.settings import Settings


def plan_job(job: FineTuneJob, observed: Observed, now: datetime, settings: Settings) -> Plan:
    """Decide everything that is to be done about one FineTuneJob now."""
    # Garbage collection removes the children of an object on its way out.
    if job.is_deleting:
        return Plan(job.status)
    # A finished run never trains again, whatever is missing: only its remains are cleared away.
    if status.is_true(job.status.conditions, ConditionType.FINISHED):
        # `kubectl wait` takes no condition for true that has seen an older generation than the object's.
        seen = [item.model_copy(update={"observed_generation": job.generation}) for item in job.status.conditions]
        current = job.status.model_copy(update={"observed_generation": job.generation, "conditions": seen})
        return Plan(current, tuple(drafting.build_cleanup(job, observed)))
    draft = Draft(job, observed, now, settings, job.status)
    verdict = _decide(draft)
    if verdict.state is State.FAILED:
        stages.end_attempt(draft, verdict.reason)
    return drafting.build_plan(draft, verdict)


def _decide(draft: Draft) -> Verdict:
    # What can't run is refused before anything is created.
    spec, refusal = _parse_spec(draft)
    if spec is None or refusal is not None:
        return refusal or stages.build_failed(Reason.INVALID_SPEC, "spec can't be read")
    draft.spec = spec
    # An attempt that has ended is settled first: its result counts, whatever else is asked for meanwhile.
    verdict = stages.settle_attempt(draft) or stages.await_completion(draft)
    if verdict is not None:
        return verdict
    # What the pods do is written down before anything is judged by it.
    stages.track_attempt(draft)
    # Limits end the run wherever it stands, then the user's wish to pause it holds.
    verdict = _enforce_deadlines(draft, spec) or _suspend(draft, spec)
    if verdict is not None:
        return verdict
    # Jobs of former attempts must not run beside the current one.
    is_clear = _remove_leftovers(draft)
    attempt, child = draft.attempt, draft.child
    if attempt is not None and child is not None:
        return stages.follow_attempt(draft, spec, attempt, child)
    if not is_clear:
        return stages.await_removal(draft, spec)
    # Nothing runs: the next attempt begins, after a pause if the last one failed. The pause is no waiting for a pod.
    if attempt is None:
        draft.update(pending_since=None)
        # Also right after an attempt that this operator had taken over.
        _, refusal = _parse_spec(draft)
    return refusal or _back_off(draft) or stages.start_attempt(draft, spec)


def _parse_spec(draft: Draft) -> tuple[FineTuneJobSpec | None, Verdict | None]:
    """Read the spec; rules are applied before an attempt begins, never to one that lives."""
    raw = dict(draft.job.spec)
    try:
        spec = FineTuneJobSpec.model_validate(raw)
    except ValidationError as error:
        text = "; ".join(str(item) for item in validation.parse_errors(error, "spec", FineTuneJobSpec))
        if any(detail["type"] != "extra_forbidden" for detail in error.errors()):
            return None, stages.build_failed(Reason.INVALID_SPEC, text)
        # The CRD is newer than this operator: a field it doesn't know must neither be ignored nor end the run.
        spec = FineTuneJobSpec.model_validate(raw, extra="ignore")
        if draft.attempt is None:
            message = f"this operator is older than the CRD: {text}; upgrade the operator"
            return spec, Verdict(State.PENDING, message, Reason.INVALID_SPEC, is_stalled=True)
    if draft.attempt is not None:
        return spec, None
    return spec, _find_refusal(draft, spec)


def _find_refusal(draft: Draft, spec: FineTuneJobSpec) -> Verdict | None:
    settings = draft.settings
    if not draft.status.attempts and (found := validation.validate_spec(spec)):
        return stages.build_failed(Reason.INVALID_SPEC, "; ".join(str(item) for item in found))
    refused = admission.find_refusals(spec, recorded_image=draft.status.trainer_image or "", settings=settings)
    if refused:
        return stages.build_failed(Reason.CONFIG_ERROR, "; ".join(str(item) for item in refused))
    return None


def _enforce_deadlines(draft: Draft, spec: FineTuneJobSpec) -> Verdict | None:
    policy = spec.run_policy
    used = stages.measure_run_seconds(draft)
    if deadlines.is_reached(policy.active_deadline_seconds, used):
        text = f"the run took {used} s of the {policy.active_deadline_seconds} s that activeDeadlineSeconds allows"
        return stages.build_failed(Reason.DEADLINE_EXCEEDED, text)
    if stages.is_prepare_overdue(draft):
        limit = draft.settings.prepare_deadline_seconds
        text = f"the prepare stage ran for {limit} s, the longest this operator allows"
        return stages.build_failed(Reason.DEADLINE_EXCEEDED, text, "Use less data, or ask for a higher limit.")
    if stages.is_pending_overdue(draft, spec):
        text = f"no pod ran for {policy.pending_deadline_seconds} s: {stages.describe_pending(draft)}"
        return stages.build_failed(Reason.PENDING_DEADLINE_EXCEEDED, text)
    return None


def _suspend(draft: Draft, spec: FineTuneJobSpec) -> Verdict | None:
    attempt, child = draft.attempt, draft.child
    step = suspend.decide_step(
        is_wanted=spec.run_policy.suspend,
        is_condemned=attempt is not None and attempt.cause == Milestone.SUSPENDED,
        has_job=child is not None,
        is_job_deleting=child is not None and child.is_deleting,
    )
    if step is Step.GO_ON:
        before = status.find_condition(draft.status.conditions, ConditionType.SUSPENDED)
        if before is not None and before.status == "True" and before.reason == Milestone.USER_REQUESTED:
            draft.tell(Milestone.RESUMED, "runPolicy.suspend was taken back; the run goes on")
        return None
    if step is Step.HOLD:
        stages.end_attempt(draft, Milestone.SUSPENDED)
        draft.update(pending_since=None)
        if not _remove_leftovers(draft):
            return Verdict(State.STOPPING, "waiting until the pods of the last attempt are gone")
        return Verdict(State.SUSPENDED, "runPolicy.suspend is true; set it to false to go on")
    # The attempt is condemned in the status before its Job is deleted: its end is then nobody's failure.
    draft.update_attempt(cause=Milestone.SUSPENDED.value)
    draft.update(pending_since=None)
    if step is Step.STOP and child is not None:
        draft.actions.append(DeleteJob(child.name, child.uid))
    return Verdict(State.STOPPING, "runPolicy.suspend is true; the pods are being stopped")


def _remove_leftovers(draft: Draft) -> bool:
    """Delete live Jobs of former attempts; return whether all of them and their pods are gone."""
    current = draft.child
    others = [job for job in draft.observed.jobs if job.is_owned and not job.is_finished and job != current]
    draft.actions += [DeleteJob(job.name, job.uid) for job in others if not job.is_deleting]
    return not others and all(current is not None and pod.job_uid == current.uid for pod in draft.list_remaining_pods())


def _back_off(draft: Draft) -> Verdict | None:
    last = draft.status.attempts[-1] if draft.status.attempts else None
    if last is None or last.end_time is None or not _needs_pause(last.cause):
        return None
    retry_at = retries.compute_retry_time(
        status.parse_time(last.end_time),
        draft.status.failed_attempts,
        is_counted=last.counted,
        uid=draft.job.uid,
        attempt=last.number,
    )
    if draft.now >= retry_at:
        return None
    before = status.find_condition(draft.status.conditions, ConditionType.READY)
    text = f"the next attempt begins at {status.build_time(retry_at)}, after: {draft.failure_text}"
    if not draft.failure_text and before is not None and before.reason == Milestone.RETRYING:
        text = before.message
    wait = (retry_at - draft.now).total_seconds()
    return Verdict(State.RETRYING, text, Milestone.RETRYING, requeue_after=wait)


def _needs_pause(cause: str | None) -> bool:
    return cause not in (Milestone.SUSPENDED, Milestone.COMPLETED, Milestone.EARLY_STOPPED)

"""The status as it takes shape during one reconcile, with the actions and Events that belong to it.

All rules write here; `build_plan` turns the whole into one status, one list of actions and one list of Events. Events
tell of transitions only: what differs between the status as it was read and as it will be.
"""

from dataclasses import dataclass, field
from datetime import datetime

from finetune_api.kinds.finetunejob import status
from finetune_api.kinds.finetunejob.spec import FineTuneJobSpec
from finetune_api.kinds.finetunejob.status import Attempt, ConditionType, FineTuneJobStatus, Milestone, Progress
from finetune_api.run import Stage
from finetune_operator.jobs import conditions
from finetune_operator.jobs.attempts import clock as attempts
from finetune_operator.jobs.attempts import waiting
from finetune_operator.jobs.attempts.waiting import Wait
from finetune_operator.jobs.conditions import Facts, State, Verdict
from finetune_operator.jobs.observe import ChildJob, ChildPod, FineTuneJob, Observed
from finetune_operator.jobs.policies import ttl
from finetune_operator.runtime.plan import Action, DeleteJob, Event, PatchJob, Plan
from finetune_operator.settings import Settings

_VALIDATED_PERCENT, _TRAINING_PERCENT = 10, 20
"""Milestones, not measurements: what the operator knows for certain. 100 is success alone."""


@dataclass(slots=True)
class Draft:
    """One reconcile in the making.

    Attributes:
        spec: parsed; set by the first rule.
        wait: why the live attempt has no running pod.
        failure_text: how the attempt ended that was settled in this pass.
        final_step: optimizer step of a run that succeeded in this pass.
    """

    job: FineTuneJob
    observed: Observed
    now: datetime
    settings: Settings
    status: FineTuneJobStatus
    spec: FineTuneJobSpec | None = None
    wait: Wait | None = None
    running_since: datetime | None = None
    failure_text: str = ""
    final_step: int | None = None
    actions: list[Action] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    attempt_ends: list[str] = field(default_factory=list)

    @property
    def attempt(self) -> Attempt | None:
        """The attempt that has not ended."""
        return attempts.find_open(self.status)

    @property
    def child(self) -> ChildJob | None:
        """That attempt's Job, if it exists."""
        return self.observed.find_job(self.attempt.job) if self.attempt is not None else None

    def list_pods(self) -> tuple[ChildPod, ...]:
        """Return that Job's pods; they may outlive it."""
        if self.attempt is None:
            return ()
        uid = self.attempt.job_uid or (self.child.uid if self.child is not None else "")
        return self.observed.list_pods(uid) if uid else ()

    def list_remaining_pods(self) -> tuple[ChildPod, ...]:
        """Return the pods of all Jobs of this run that have not ended; labels alone make no pod ours."""
        names = {attempt.job for attempt in self.status.attempts}
        uids = {job.uid for job in self.observed.jobs if job.is_owned}
        pods = (pod for pod in self.observed.pods if not pod.is_terminal)
        return tuple(pod for pod in pods if pod.job_uid in uids or pod.job_name in names)

    def update(self, **changes: object) -> None:
        """Set fields of the status."""
        self.status = self.status.model_copy(update=changes)

    def update_attempt(self, **changes: object) -> None:
        """Set fields of the last attempt."""
        self.status = attempts.replace_last(self.status, self.status.attempts[-1].model_copy(update=changes))

    def tell(self, reason: str, message: str, *, is_warning: bool = False) -> None:
        """Add an Event."""
        self.events.append(Event(str(reason), status.build_message(message), is_warning))


def build_plan(draft: Draft, verdict: Verdict) -> Plan:
    """Complete the status with what follows from the verdict, and collect what is to be done."""
    job, now = draft.job, draft.now
    child = draft.child
    is_finished = verdict.state in (State.SUCCEEDED, State.FAILED)
    facts = Facts(
        has_job=child is not None and child.is_owned,
        is_held=child is not None and child.is_suspended,
        running_since=None if is_finished else draft.running_since,
        stuck_pod=find_stuck_pod(draft),
    )
    if is_finished:
        draft.update(failure=verdict.failure, completion_time=status.build_time(now), pending_since=None)
        draft.actions = build_cleanup(job, draft.observed)
    draft.update(
        observed_generation=job.generation,
        conditions=conditions.build_conditions(draft.status, verdict, facts, generation=job.generation, now=now),
    )
    progress = _build_progress(draft, verdict)
    draft.update(progress=progress, phase=conditions.derive_phase(draft.status.conditions, progress.stage))
    _tell_transitions(draft, verdict)
    return Plan(
        status=draft.status,
        actions=tuple(draft.actions),
        events=tuple(draft.events),
        requeue_after=verdict.requeue_after,
        attempt_ends=tuple(draft.attempt_ends),
    )


def build_cleanup(job: FineTuneJob, observed: Observed) -> list[Action]:
    """Delete what still runs of a finished run, and let the rest expire."""
    policy = job.spec.get("runPolicy") or {}
    wanted = policy.get("ttlSecondsAfterFinished")
    owned = [child for child in observed.jobs if child.is_owned and not child.is_deleting]
    actions: list[Action] = [DeleteJob(child.name, child.uid) for child in owned if not child.is_finished]
    if isinstance(wanted, int):
        finished = [(child.name, child.uid, child.ttl_seconds) for child in owned if child.is_finished]
        changes = ttl.find_changes(finished, wanted)
        actions += [PatchJob(name, uid, {"ttlSecondsAfterFinished": wanted}) for name, uid in changes]
    return actions


def find_stuck_pod(draft: Draft) -> str:
    """Name a pod that can't be removed, and what to do; empty if there is none."""
    found = (waiting.describe_stuck(pod, draft.now) for pod in draft.list_remaining_pods())
    return next(filter(None, found), "")


def _build_progress(draft: Draft, verdict: Verdict) -> Progress:
    old = draft.status.progress or Progress()
    last = draft.status.attempts[-1] if draft.status.attempts else None
    percent = 0
    if draft.status.prepared_sha256 is not None:
        is_training = last is not None and last.stage == Stage.TRAIN and last.start_time is not None
        percent = _TRAINING_PERCENT if is_training else _VALIDATED_PERCENT
    if verdict.state is State.SUCCEEDED:
        percent = 100
    total = draft.status.resolved.get("totalSteps", "")
    new = old.model_copy(
        update={
            "stage": last.stage if last is not None else Stage.PREPARE.value,
            "percent": max(old.percent, percent),
            "total_steps": int(total) if total.isdecimal() else old.total_steps,
            "step": draft.final_step if draft.final_step is not None else old.step,
        }
    )
    return old if new == old else new.model_copy(update={"update_time": status.build_time(draft.now)})


def _tell_transitions(draft: Draft, verdict: Verdict) -> None:
    """Tell what became true in this pass; what was true before was told before."""
    old, new = draft.job.status.conditions, draft.status.conditions

    def became_true(condition_type: ConditionType) -> bool:
        return status.is_true(new, condition_type) and not status.is_true(old, condition_type)

    if became_true(ConditionType.VALIDATED):
        draft.tell(Milestone.VALIDATED, "model, data and memory are checked; the training can begin")
    if became_true(ConditionType.RUNNING) and (last := draft.status.attempts[-1]):
        draft.tell(Milestone.RUNNING, f"attempt {last.number} of stage {last.stage} runs")
    if verdict.state is State.SUSPENDED and became_true(ConditionType.SUSPENDED):
        draft.tell(Milestone.SUSPENDED, verdict.message)
    if became_true(ConditionType.TERMINATION_STUCK):
        stuck = status.find_condition(new, ConditionType.TERMINATION_STUCK)
        draft.tell(Milestone.NODE_UNREACHABLE, stuck.message if stuck is not None else "", is_warning=True)
    if verdict.state is State.SUCCEEDED:
        draft.tell(Milestone.SUCCEEDED, verdict.message)
    # A stuck pod was told above.
    is_news = verdict.reason != Milestone.NODE_UNREACHABLE and _is_new_stall(draft, verdict)
    if verdict.state is State.FAILED or (verdict.is_stalled and is_news):
        draft.tell(verdict.reason, verdict.message, is_warning=True)


def _is_new_stall(draft: Draft, verdict: Verdict) -> bool:
    before = status.find_condition(draft.job.status.conditions, ConditionType.STALLED)
    return before is None or before.reason != verdict.reason

"""What one pass over a FineTuneJob reads and gathers: the status as it takes shape, with its actions and Events.

Every rule gets the context and writes here; `reconcile` turns the whole into one Plan at the end.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from finetune_api.kinds import status_fields
from finetune_api.kinds.attempts import Attempt
from finetune_api.kinds.finetunejob import status
from finetune_api.kinds.finetunejob.spec import FineTuneJobSpec
from finetune_api.kinds.finetunejob.status import FineTuneJobStatus
from finetune_operator.jobs.observe import ChildJob, ChildPod, FineTuneJob, Observed
from finetune_operator.runtime import logs
from finetune_operator.runtime.plan import Action, Event
from finetune_operator.settings import Settings

if TYPE_CHECKING:
    from finetune_operator.jobs.attempts.wait_causes import Wait


@dataclass(slots=True)
class Context:
    """One pass in the making.

    Attributes:
        status: as it will be written.
        spec: parsed; set by the first rule.
        wait: why the live attempt has no running pod.
        running_since: a pod of the live attempt runs since then.
        final_step: optimizer step of a run that succeeded in this pass.
        attempt_ends: for the metrics, how attempts ended that did not end the run.
    """

    job: FineTuneJob
    observed: Observed
    now: datetime
    settings: Settings
    status: FineTuneJobStatus
    spec: FineTuneJobSpec | None = None
    wait: "Wait | None" = None
    running_since: datetime | None = None
    final_step: int | None = None
    actions: list[Action] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    attempt_ends: list[str] = field(default_factory=list)

    @property
    def attempt(self) -> Attempt | None:
        """The attempt that has not ended."""
        return find_open(self.status)

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

    def find_stuck_pod(self) -> str:
        """Name a pod that can't be removed, and what to do; empty if there is none."""
        found = (pod.describe_stuck(self.now) for pod in self.list_remaining_pods())
        return next(filter(None, found), "")

    def update(self, **changes: object) -> None:
        """Set fields of the status."""
        self.status = self.status.model_copy(update=changes)

    def update_attempt(self, **changes: object) -> None:
        """Set fields of the last attempt."""
        last = self.status.attempts[-1].model_copy(update=changes)
        self.update(attempts=[*self.status.attempts[:-1], last])

    def add_warnings(self, texts: Iterable[str]) -> None:
        """Add warnings that aren't there yet, as far as there is room."""
        added = [status_fields.build_message(logs.scrub_text(text)) for text in texts]
        self.update(warnings=list(dict.fromkeys([*self.status.warnings, *added]))[: status.MAX_WARNINGS])

    def record_event(self, reason: str, message: str, *, is_warning: bool = False) -> None:
        """Add an Event about the FineTuneJob."""
        self.events.append(Event(str(reason), status_fields.build_message(logs.scrub_text(message)), is_warning))


def find_open(current: FineTuneJobStatus) -> Attempt | None:
    """Return the attempt that has not ended, if there is one; it is always the last."""
    last = current.attempts[-1] if current.attempts else None
    return last if last is not None and last.end_time is None else None

"""What one reconcile decides: the status to write, then the Events to tell, then the actions to take.

The order is part of the design. An attempt stands in the status before its Job is created, and the terminal status is
written before anything is cleaned up, so that a crash between two steps leaves a state the next pass understands.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from finetune_api.kinds.finetunejob.status import FineTuneJobStatus


@dataclass(frozen=True, slots=True)
class CreateJob:
    """Create a child Job unless it is there already."""

    manifest: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class DeleteJob:
    """Delete exactly this child Job in the foreground: it stays until its pods had their full grace and are gone."""

    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class PatchJob:
    """Change mutable fields of a child Job's spec."""

    name: str
    uid: str
    spec: Mapping[str, Any]


Action = CreateJob | DeleteJob | PatchJob


@dataclass(frozen=True, slots=True)
class Event:
    """A Kubernetes Event about the FineTuneJob; one per transition."""

    reason: str
    message: str
    is_warning: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """The outcome of one reconcile.

    Attributes:
        requeue_after: seconds after which time alone may change the outcome; None: only an event can.
        attempt_ends: for the metrics, how attempts ended that did not end the run: disruption, error, oom, preempted.
    """

    status: FineTuneJobStatus
    actions: tuple[Action, ...] = ()
    events: tuple[Event, ...] = ()
    requeue_after: float | None = None
    attempt_ends: tuple[str, ...] = ()

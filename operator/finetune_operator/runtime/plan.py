"""What one reconcile decides: the status to write, then the actions to take, then the Events to record.

The order is part of the design. What is about to be made stands in the status first, and the terminal status is written
before anything is cleaned up, so that a crash between two steps leaves a state the next pass understands. Events come
last: a Job must not wait for what is only read by people.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Manifest = dict[str, Any]
"""An object as the API server gives and takes it."""


@dataclass(frozen=True, slots=True)
class CreateJob:
    """Create a child Job unless it is there already."""

    manifest: Manifest


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


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A running pod that is asked from time to time what it is at.

    Attributes:
        url: that is read.
        headers: of every request.
        wish: what it is to be told, once; empty: nothing.
        wish_url: that is posted to for it.
        known: what of its answers was taken over; whether a further one is news is the kind's to say.
    """

    pod_uid: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    wish: str = ""
    wish_url: str = ""
    known: object = None


Action = CreateJob | DeleteJob | PatchJob


@dataclass(frozen=True, slots=True)
class Event:
    """A Kubernetes Event about the object; one per transition."""

    reason: str
    message: str
    is_warning: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """The outcome of one reconcile.

    Attributes:
        status: the whole status as it is to be stored.
        status_patch: the merge patch that makes it of what was read; empty: nothing is to be written. A field that this
            version doesn't know is not in it.
        requeue_after: seconds after which time alone may change the outcome; None: only an event can.
        endpoint: the pod that is to be asked from now on; None: there is none.
        attempt_ends: for the metrics, how attempts ended that did not end the run: disruption, error, oom, preempted.
    """

    status: Manifest
    status_patch: Manifest = field(default_factory=dict)
    actions: tuple[Action, ...] = ()
    events: tuple[Event, ...] = ()
    requeue_after: float | None = None
    attempt_ends: tuple[str, ...] = ()
    endpoint: Endpoint | None = None

"""What a kind of ours must say to be run: every extension point of the runtime, on one page.

A kind is one object that satisfies `Kind`. All but the last section is pure: objects as the API server gave them in,
decisions out. The runtime watches, queues, reads, writes and counts; it never looks into a spec or a status.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from finetune_operator.runtime.plan import Manifest, Plan
from finetune_operator.runtime.resources import Resource

Key = tuple[str, str]
"""Namespace and name of an object of a kind."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """What the API server said when it refused to make a child."""

    code: int
    message: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What a pod said when it was asked last.

    Attributes:
        body: as it came; empty: nothing yet.
        wish: that it was told last.
    """

    pod_uid: str
    body: bytes = b""
    wish: str = ""


@dataclass(frozen=True, slots=True)
class Children:
    """Everything around one object, as it was read for one pass.

    Attributes:
        events: about children of which only an Event says why they don't come forward.
        refusals: by the name of a child, why it could not be made the last time.
        peers: other objects of the kind that share its index value.
        answer: of the pod that the last pass named.
    """

    jobs: Sequence[Manifest] = ()
    pods: Sequence[Manifest] = ()
    events: Sequence[Manifest] = ()
    refusals: Mapping[str, Refusal] = field(default_factory=dict)
    peers: Sequence[Key] = ()
    answer: Answer | None = None


class Kind(Protocol):
    """A kind of ours."""

    # Where its objects and their children are found.

    @property
    def resource(self) -> Resource:
        """Its resource, with a status subresource."""

    @property
    def owner_label(self) -> str:
        """Label of a child: name of the object it belongs to."""

    @property
    def uid_label(self) -> str:
        """Label of a child: uid of that object."""

    @property
    def unfinished_selector(self) -> str:
        """Field selector of the objects that have not finished."""

    # What is read: of each object of a long list, and for a pass.

    @property
    def listed_fields(self) -> Sequence[str]:
        """Paths below spec and status that `is_finished`, `is_watched`, `build_index_value` and `record_seen` read."""

    def list_expected_jobs(self, manifest: Manifest) -> Sequence[str] | None:
        """Return the names of the Jobs that its status says are there; None: it has no children, read none."""

    def list_unexplained(self, children: Children, now: datetime) -> Sequence[str]:
        """Return the uids of children whose Events must be read."""

    # What is decided.

    def reconcile(self, manifest: Manifest, children: Children, now: datetime) -> Plan:
        """Decide everything that is to be done about an object now.

        Raises:
            ValueError: its status isn't one of ours.
        """

    def is_news(self, known: object, body: bytes) -> bool:
        """Tell whether a pod's answer says something new beside what its `Endpoint` says is known."""

    def is_finished(self, manifest: Manifest) -> bool:
        """Tell whether nothing more is to be done: it has finished, and its newest generation was seen."""

    def is_watched(self, manifest: Manifest) -> bool:
        """Tell whether `unfinished_selector` selects it."""

    def is_own_child(self, manifest: Manifest) -> bool:
        """Tell whether a Job was made by this operator, going by its metadata alone."""

    def build_index_value(self, manifest: Manifest) -> str:
        """Return what an object may share with others of which it must know; empty: nothing."""

    # What is counted.

    def record_plan(self, manifest: Manifest, plan: Plan) -> None:
        """Count what a plan decided, once its status was written."""

    def record_seen(self, manifest: Manifest) -> None:
        """Keep the gauges of an object of a list up to date; of it there are only the `listed_fields`."""

    def record_gone(self, key: Key) -> None:
        """Drop the gauges of an object that is gone."""

    def list_recorded(self) -> set[Key]:
        """Return the objects there are gauges for."""

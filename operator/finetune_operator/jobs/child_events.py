"""What the Events of a child say: for a Job without pods or a pod that doesn't start, nothing else does. Pure.

Events stay for an hour, so one may tell of a trouble that is over: only the newest counts, and none from before the Job
was last started.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from finetune_api.kinds import status_fields

Manifest = Mapping[str, Any]

CREATE_FAILED = "FailedCreate"
_JOB_REASONS = frozenset({CREATE_FAILED, "SuccessfulCreate", "SuccessfulDelete", "Suspended", "Resumed"})
"""Of the Job controller: https://github.com/kubernetes/kubernetes, pkg/controller/controller_utils.go and job/."""
START_FAILURES = frozenset(
    {
        "FailedCreatePodSandBox",
        "FailedMount",
        "FailedAttachVolume",
        "FailedMapVolume",
        "FailedCreatePodContainer",
        "NetworkNotReady",
    }
)
"""Of the kubelet: https://github.com/kubernetes/kubernetes, pkg/kubelet/events/event.go."""


@dataclass(frozen=True, slots=True)
class StartError:
    """Why the kubelet can't start a pod, in its own words."""

    reason: str
    message: str


def find_create_error(uid: str, started_at: datetime | None, events: Sequence[Manifest]) -> str:
    """Return why a Job can't make its pod; empty: it could the last time, or nothing is known."""
    newest = _find_newest(uid, _JOB_REASONS, events)
    if newest.get("reason") != CREATE_FAILED:
        return ""
    moment = _read_moment(newest)
    is_old = started_at is not None and moment is not None and moment < started_at
    return "" if is_old else str(newest.get("message", ""))


def find_start_error(uid: str, events: Sequence[Manifest]) -> StartError | None:
    """Return what the kubelet failed at last."""
    newest = _find_newest(uid, START_FAILURES, events)
    return StartError(newest["reason"], str(newest.get("message", ""))) if newest else None


def _find_newest(uid: str, reasons: Collection[str], events: Iterable[Manifest]) -> Manifest:
    found = [
        event
        for event in events
        if event.get("reason") in reasons and event.get("involvedObject", {}).get("uid") == uid
    ]
    return max(found, key=_read_text, default={})


def _read_text(event: Manifest) -> str:
    series = event.get("series") or {}
    return str(series.get("lastObservedTime") or event.get("lastTimestamp") or event.get("eventTime") or "")


def _read_moment(event: Manifest) -> datetime | None:
    text = _read_text(event)
    return status_fields.parse_time(text) if text else None

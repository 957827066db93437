"""Why no pod of the live attempt runs: the queue, the scheduler, the image, a missing Secret, a policy.

"Pending" always says why: an endless wait without a cause is what users of such operators complain about most. Pure.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from finetune_api.kinds import status_fields
from finetune_api.kinds.finetunejob.status import Milestone, Reason
from finetune_operator.jobs.attempts import refusals
from finetune_operator.jobs.observe import ChildJob, ChildPod
from finetune_operator.runtime import logs


@dataclass(frozen=True, slots=True)
class Wait:
    """What is waited for.

    Attributes:
        reason: a failure's reason where somebody must act, else Pending or Queued.
        is_stalled: nothing moves until somebody acts.
        is_queued: waits for quota or a node.
        stalls_at: when a wait that may still pass becomes one that needs somebody.
    """

    reason: str
    message: str
    is_stalled: bool = False
    is_queued: bool = False
    stalls_at: datetime | None = None


IMAGE_REASONS = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
        "SignatureValidationFailed",
    }
)
"""Waiting reasons of the kubelet: https://github.com/kubernetes/kubernetes, pkg/kubelet/images/types.go."""

_CREATE_ERRORS: tuple[tuple[str, Reason], ...] = (
    (r"exceeded quota|failed quota|status unknown for quota", Reason.QUOTA_EXCEEDED),
    (r"violates PodSecurity", Reason.POD_SECURITY_VIOLATION),
    (r"not found|no PriorityClass", Reason.REFERENCE_NOT_FOUND),
    (r"", Reason.CONFIG_ERROR),
)
"""What the API server says when it refuses a Job's pod, first match wins; the rest are webhooks and limits."""


def describe_wait(job: ChildJob, pods: Sequence[ChildPod], now: datetime, unschedulable_grace_seconds: int) -> Wait:
    """Say why no pod of this Job runs."""
    if job.is_suspended:
        text = logs.scrub_text(job.suspended_message) or "the Job is suspended"
        return Wait(Milestone.QUEUED, f"Job {job.name} waits in the queue: {text}", is_queued=True)
    waiting = next((pod for pod in reversed(pods) if not pod.is_terminal), None)
    if waiting is None:
        return _describe_no_pod(job)
    if stuck := waiting.describe_stuck(now):
        return Wait(Milestone.NODE_UNREACHABLE, stuck, is_stalled=True)
    # Only a kubelet says why a container waits: whatever the scheduler says beside it is older.
    if (waiting.unschedulable or waiting.is_gated) and not waiting.waiting_reason:
        return _describe_unscheduled(waiting, now, unschedulable_grace_seconds)
    return _describe_container(waiting)


def _describe_no_pod(job: ChildJob) -> Wait:
    if not job.create_error:
        return Wait(Milestone.PENDING, f"Job {job.name} waits for its pod")
    # The generated pod name changes with every try; a message that changed with it would be written again and again.
    text = re.sub(r'pods? "[^"]*" is', "the pod is", logs.scrub_text(job.create_error)).removeprefix("Error creating: ")
    reason = next(reason for pattern, reason in _CREATE_ERRORS if re.search(pattern, text))
    if refusals.is_uncounted_quota(text):
        return Wait(reason, f"Job {job.name} can't create its pod yet: {text}; it is tried again by itself")
    return Wait(reason, f"Job {job.name} can't create its pod: {text}", is_stalled=True)


def _describe_unscheduled(pod: ChildPod, now: datetime, grace_seconds: int) -> Wait:
    if pod.is_gated:
        return Wait(Milestone.QUEUED, f"pod {pod.name} is held back by a scheduling gate", is_queued=True)
    since = pod.unschedulable_since or pod.created_at
    stalls_at = since + timedelta(seconds=grace_seconds)
    is_stalled = now >= stalls_at
    return Wait(
        Reason.UNSCHEDULABLE,
        f"pod {pod.name} fits on no node since {status_fields.build_time(since)}: {pod.unschedulable}",
        is_stalled=is_stalled,
        is_queued=True,
        stalls_at=None if is_stalled else stalls_at,
    )


def _describe_container(pod: ChildPod) -> Wait:
    text = logs.scrub_text(pod.waiting_message) or pod.waiting_reason
    if pod.waiting_reason in IMAGE_REASONS:
        # The kubelet alternates between two messages for one failure; the steadier half is kept.
        return Wait(Reason.IMAGE_PULL_FAILED, f"the trainer image can't be pulled: {_steady(text)}", is_stalled=True)
    if pod.waiting_reason == "CreateContainerConfigError":
        return Wait(Reason.REFERENCE_NOT_FOUND, f"the container can't be set up: {text}", is_stalled=True)
    if pod.waiting_reason in ("CreateContainerError", "RunContainerError"):
        return Wait(Reason.CONFIG_ERROR, f"the container can't be started: {text}", is_stalled=True)
    if pod.start_error is not None:
        text = _steady_pod(pod, pod.start_error.message)
        return Wait(pod.start_error.reason, f"pod {pod.name} can't be started: {text}", is_stalled=True)
    return Wait(Milestone.PENDING, f"pod {pod.name} starts: {pod.waiting_reason or pod.phase}")


def _steady_pod(pod: ChildPod, text: str) -> str:
    """Leave out what changes with every try of one failure: the pod's uid and the name of its sandbox."""
    text = logs.scrub_text(text).replace(pod.uid, "…") if pod.uid else logs.scrub_text(text)
    return re.sub(r"\b[0-9a-f]{64}\b", "…", text)


def _steady(text: str) -> str:
    return re.sub(r"^Back-off pulling image (\S+?)(:\s.*)?$", r"image \1", text, flags=re.S)

"""Why nothing runs, and what the job shows while it waits."""

from dataclasses import dataclass
from typing import Any

import cluster_objects as objects
import pytest
from cluster_objects import to_prepare


def _kinds(plan: Any) -> list[str]:
    return [type(action).__name__ for action in plan.actions]


def _events(plan: Any) -> list[str]:
    return [event.reason for event in plan.events]


@dataclass(frozen=True)
class Waits:
    """What holds a pod back and how the job shows it."""

    sentence: str
    want_ready: str
    want_stalled: tuple[str, str]
    want_phase: str
    reason: str = ""
    message: str = ""
    create_error: str = ""
    unschedulable_at: float | None = None
    want_message: str = ""


def _waits(sentence: str, reason: str, want_ready: str, want_stalled: str, message: str = "x") -> Waits:
    stalled = ("True", want_stalled) if want_stalled else ("False", want_ready)
    return Waits(sentence, want_ready, stalled, "Validating", reason=reason, message=message)


WAITS = [
    _waits("a pod that is being created", "ContainerCreating", "Pending", "", ""),
    _waits("an image pull error", "ErrImagePull", "Pending", "ImagePullFailed"),
    _waits("an image pull back-off", "ImagePullBackOff", "Pending", "ImagePullFailed"),
    _waits("an invalid image name", "InvalidImageName", "Pending", "ImagePullFailed"),
    _waits("an image that may not be pulled", "ErrImageNeverPull", "Pending", "ImagePullFailed"),
    _waits("a missing Secret", "CreateContainerConfigError", "ReferenceNotFound", "ReferenceNotFound"),
    _waits("a container that can't be created", "CreateContainerError", "Pending", "ConfigError"),
    _waits("a container that can't be run", "RunContainerError", "Pending", "ConfigError"),
    Waits(
        "a quota",
        "Pending",
        ("True", "QuotaExceeded"),
        "Validating",
        create_error='Error creating: pods "movies-x1-abcde" is forbidden: exceeded quota: gpu, requested: pods=1',
        want_message="can't create its pod: the pod is forbidden: exceeded quota: gpu, requested: pods=1",
    ),
    Waits(
        "a quota that wants limits",
        "Pending",
        ("True", "QuotaExceeded"),
        "Validating",
        create_error='Error creating: pods "m" is forbidden: failed quota: q: must specify limits.cpu',
    ),
    Waits(
        "a quota whose usage is not counted yet",
        "Pending",
        ("False", "Pending"),
        "Validating",
        create_error='Error creating: pods "m" is forbidden: status unknown for quota: q, resources: pods',
        want_message="the pod is forbidden: status unknown for quota: q, resources: pods; it is tried again",
    ),
    Waits(
        "Pod Security",
        "Pending",
        ("True", "PodSecurityViolation"),
        "Validating",
        create_error='Error creating: pods "m" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot',
    ),
    Waits(
        "a missing ServiceAccount",
        "ReferenceNotFound",
        ("True", "ReferenceNotFound"),
        "Validating",
        create_error='Error creating: pods "m" is forbidden: error looking up: serviceaccount "x" not found',
    ),
    Waits(
        "a missing PriorityClass",
        "ReferenceNotFound",
        ("True", "ReferenceNotFound"),
        "Validating",
        create_error='Error creating: pods "m" is forbidden: no PriorityClass with name high was found',
    ),
    Waits(
        "a webhook",
        "Pending",
        ("True", "ConfigError"),
        "Validating",
        create_error='Error creating: admission webhook "policy.example.com" denied the request: no',
    ),
    Waits("no node yet", "Queued", ("False", "Queued"), "Queued", unschedulable_at=0),
    Waits("no node for too long", "Queued", ("True", "Unschedulable"), "Queued", unschedulable_at=-400),
]


def test_a_quota_that_was_not_counted_and_then_is_exceeded_stalls_the_run() -> None:
    cluster = to_prepare()
    involved = {"uid": cluster.children[0]["metadata"]["uid"]}
    texts = ("status unknown for quota: q, resources: pods", "exceeded quota: q, requested: pods=1, limited: pods=0")
    seen = []
    for second, text in zip((12, 24), texts, strict=True):
        told = {"reason": "FailedCreate", "message": text, "lastTimestamp": objects.time_text(second)}
        cluster.events.append(told | {"involvedObject": involved})
        plan = cluster.step(second)
        seen.append((cluster.get_condition("Stalled")[:2], _events(plan)))
    assert seen == [(("False", "Pending"), []), (("True", "QuotaExceeded"), ["QuotaExceeded"])]


@pytest.mark.parametrize("case", WAITS, ids=lambda case: case.sentence)
def test_a_wait_says_why(case: Waits) -> None:
    cluster = to_prepare()
    if case.create_error:
        involved = {"uid": cluster.children[0]["metadata"]["uid"]}
        cluster.events = [{"reason": "FailedCreate", "message": case.create_error, "involvedObject": involved}]
    else:
        pod = cluster.add_pod(0)
        if case.unschedulable_at is not None:
            objects.set_unschedulable(pod, case.unschedulable_at)
        else:
            objects.hold_pod(pod, case.reason, case.message)
    plan = cluster.step(12)
    assert cluster.get_condition("Ready")[:2] == ("False", case.want_ready)
    assert cluster.get_condition("Stalled")[:2] == case.want_stalled
    assert cluster.get_condition("Reconciling")[0] == ("False" if case.want_stalled[0] == "True" else "True")
    assert cluster.status["phase"] == case.want_phase
    assert case.want_message in cluster.get_condition("Ready")[2]
    assert _kinds(plan) == [], "a wait is no reason to act"
    assert plan.requeue_after is not None, "the pending deadline must be looked at"
    assert ("Warning" if case.want_stalled[0] == "True" else "") == (
        "Warning" if any(e.is_warning for e in plan.events) else ""
    )
    # The same sight once more writes nothing and tells nothing.
    before = cluster.status
    assert cluster.step(13).events == ()
    assert cluster.status == before
    # Too long a wait ends the run with the cause in the message.
    plan = cluster.step(3601)
    assert cluster.status["failure"]["reason"] == "PendingDeadlineExceeded"
    assert cluster.get_condition("Ready")[1] == "Failed"
    assert _kinds(plan) == ["DeleteJob"]

"""Events of children: what keeps a pod from starting is named within a minute, and what is over is not."""

from typing import Any

import cluster_objects as objects
import pytest
from cluster_objects import SETTINGS, UID, Cluster, at, hold_pod, to_prepare
from manifests import Manifest

from finetune_operator.jobs import observe
from finetune_operator.jobs.kind import FineTuneJobs
from finetune_operator.runtime.kind import Children
from finetune_operator.runtime.metrics import Metrics


def _make_event(uid: str, reason: str, message: str, seconds: float = 0, **fields: Any) -> Manifest:
    moment = objects.time_text(seconds)
    return {"reason": reason, "message": message, "lastTimestamp": moment, "involvedObject": {"uid": uid}, **fields}


def _hold() -> tuple[Cluster, str]:
    cluster = to_prepare()
    cluster.step(1)
    pod = cluster.add_pod(2)
    hold_pod(pod, "ContainerCreating")
    cluster.step(2)
    return cluster, pod["metadata"]["uid"]


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        ("FailedCreatePodSandBox", "Failed to create pod sandbox: runc: container init was OOM-killed"),
        ("FailedMount", 'MountVolume.SetUp failed for volume "run": object "demo"/"x" not registered'),
        ("FailedAttachVolume", "Multi-Attach error for volume"),
        ("NetworkNotReady", "network is not ready: cni plugin not initialized"),
    ],
)
def test_what_the_kubelet_fails_at_stalls_the_run_by_its_name(reason: str, message: str) -> None:
    cluster, uid = _hold()
    cluster.events = [_make_event(uid, "Scheduled", "assigned"), _make_event(uid, reason, message, 10)]
    plan = cluster.step(30)
    status, shown, text = cluster.get_condition("Stalled")
    assert (status, shown) == ("True", reason)
    assert text == f"pod {cluster.pods[0]['metadata']['name']} can't be started: {message}"
    assert objects.list_reasons(plan) == [reason]
    assert [event.is_warning for event in plan.events] == [True]
    assert cluster.get_condition("Reconciling")[0] == "False"
    # Once it starts, nothing of it remains.
    objects.start_pod(cluster.pods[0], 40)
    cluster.step(40)
    assert cluster.get_condition("Stalled")[0] == "False"


def test_a_failure_that_differs_only_in_names_made_for_each_try_is_written_once() -> None:
    cluster, uid = _hold()
    texts = [f'failed to start sandbox "{letter * 64}" of pod {uid}: exit status 1' for letter in "ab"]
    cluster.events = [_make_event(uid, "FailedCreatePodSandBox", texts[0], 10)]
    cluster.step(30)
    cluster.events = [_make_event(uid, "FailedCreatePodSandBox", texts[1], 40)]
    assert cluster.step(60).status_patch == {}


def test_a_pod_that_does_not_start_is_asked_about_within_a_minute() -> None:
    cluster, uid = _hold()
    kind = FineTuneJobs(SETTINGS, Metrics())
    waits = []
    now = 2.0
    for _ in range(6):
        plan = cluster.step(now)
        assert plan.requeue_after is not None
        waits.append(plan.requeue_after)
        now += plan.requeue_after
    assert max(waits) <= 45
    children = Children(jobs=cluster.children, pods=cluster.pods)
    assert kind.list_unexplained(children, at(5)) == []
    assert kind.list_unexplained(children, at(12)) == [uid]
    objects.start_pod(cluster.pods[0], 13)
    assert kind.list_unexplained(children, at(60)) == []


def test_a_pod_that_says_itself_why_it_waits_needs_no_events() -> None:
    kind = FineTuneJobs(SETTINGS, Metrics())
    for reason in ("ErrImagePull", "CreateContainerConfigError"):
        cluster, _ = _hold()
        hold_pod(cluster.pods[0], reason)
        assert kind.list_unexplained(Children(jobs=cluster.children, pods=cluster.pods), at(60)) == []
    cluster, _ = _hold()
    objects.set_unschedulable(cluster.pods[0], 3)
    cluster.pods[0]["status"].pop("containerStatuses")
    assert kind.list_unexplained(Children(jobs=cluster.children, pods=cluster.pods), at(60)) == []


def _fail(message: str, seconds: float, **fields: Any) -> Manifest:
    return _make_event("1", "FailedCreate", message, seconds, **fields)


OVER: list[tuple[str, list[Manifest], str]] = [
    ("a failure", [_fail("quota", 10)], "quota"),
    (
        "the newest of two",
        [_make_event("1", "FailedCreate", "old", 1), _make_event("1", "FailedCreate", "new", 2)],
        "new",
    ),
    (
        "one before a success",
        [_make_event("1", "FailedCreate", "q", 1), _make_event("1", "SuccessfulCreate", "", 2)],
        "",
    ),
    (
        "one after a success",
        [_make_event("1", "SuccessfulCreate", "", 1), _make_event("1", "FailedCreate", "q", 2)],
        "q",
    ),
    ("one from before the Job was resumed", [_fail("old", -60)], ""),
    ("another Job's", [_make_event("2", "FailedCreate", "other", 10)], ""),
    (
        "a series that goes on",
        [_fail("q", -60, series={"lastObservedTime": objects.time_text(10)})],
        "q",
    ),
]


@pytest.mark.parametrize(("sentence", "events", "want"), OVER, ids=[case[0] for case in OVER])
def test_only_a_trouble_that_lasts_is_told_of_a_job(sentence: str, events: list[Manifest], want: str) -> None:
    job = {"metadata": {"name": "j", "uid": "1"}, "status": {"startTime": objects.time_text(0)}}
    [found] = observe.observe_children(UID, Children(jobs=[job], events=events)).jobs
    assert found.create_error == want

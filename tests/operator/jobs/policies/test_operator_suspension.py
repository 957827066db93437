"""A pause says what it costs, before and after, and one that was taken back waits for nothing for ever."""

import cluster_objects as objects
from cluster_objects import Cluster, to_train


def _suspend(cluster: Cluster, is_wanted: bool = True) -> None:
    cluster.job["spec"]["runPolicy"]["suspend"] = is_wanted
    cluster.job["metadata"]["generation"] += 1


def _train() -> Cluster:
    cluster = to_train()
    objects.start_pod(cluster.add_pod(25), 25)
    cluster.step(30)
    return cluster


def test_what_is_lost_is_said_before_and_after() -> None:
    cluster = _train()
    _suspend(cluster)
    cluster.step(306)
    assert cluster.get_condition("Ready")[2] == (
        "runPolicy.suspend is true; the pods are being stopped; what this attempt has done is lost: "
        "this run keeps no checkpoints"
    )
    plan = cluster.step(310)
    text = "runPolicy.suspend is true; set it to false to go on; the 285 s of attempt 1 of stage train are lost, "
    assert cluster.get_condition("Suspended") == ("True", "UserRequested", f"{text}the next begins anew")
    assert [event.message for event in plan.events] == [f"{text}the next begins anew"]
    _suspend(cluster, False)
    [resumed, *_] = cluster.step(400).events
    assert resumed.message == (
        "runPolicy.suspend was taken back; the run goes on; the 285 s of attempt 1 of stage train are lost, "
        "the next begins anew"
    )


def test_nothing_is_lost_before_a_pod_ran() -> None:
    cluster = to_train()
    cluster.step(21)
    _suspend(cluster)
    cluster.step(30)
    cluster.step(31)
    assert "lost" not in cluster.get_condition("Ready")[2]


def test_a_pause_taken_back_waits_for_a_pod_on_a_lost_node_as_for_any_other() -> None:
    cluster = _train()
    _suspend(cluster)
    plan = cluster.plan(100)
    cluster.job["status"] = plan.status
    [child], [pod] = cluster.children[-1:], cluster.pods[-1:]
    child["metadata"]["deletionTimestamp"] = objects.time_text(100)
    pod["metadata"]["deletionTimestamp"] = objects.time_text(130)
    _suspend(cluster, False)
    cluster.step(110)
    assert cluster.get_condition("Ready")[1:] == ("Pending", "waiting until the pods of the former attempt are gone")
    plan = cluster.step(700)
    assert cluster.get_condition("Stalled")[:2] == ("True", "NodeUnreachable")
    assert "remove its node" in cluster.get_condition("Ready")[2]
    assert plan.requeue_after is not None
    limit = cluster.job["spec"]["runPolicy"]["pendingDeadlineSeconds"]
    cluster.step(700 + limit)
    assert cluster.status["failure"]["reason"] == "PendingDeadlineExceeded"

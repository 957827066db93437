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
        "runPolicy.suspend is true; the pods are being stopped; a training that has begun saves a checkpoint first"
    )
    plan = cluster.step(310)
    text = "; no checkpoint is known, so the 285 s of attempt 1 may be lost"
    held = f"runPolicy.suspend is true; set it to false to go on{text}"
    assert cluster.get_condition("Suspended") == ("True", "UserRequested", held)
    assert [event.message for event in plan.events] == [held]
    _suspend(cluster, False)
    [resumed, *_] = cluster.step(400).events
    assert resumed.message == f"runPolicy.suspend was taken back{text}"


def test_a_prepare_stage_that_is_stopped_begins_anew() -> None:
    cluster = objects.to_prepare()
    objects.start_pod(cluster.add_pod(5), 5)
    cluster.step(10)
    _suspend(cluster)
    cluster.step(65)
    assert cluster.get_condition("Ready")[2].endswith(
        "what this attempt has done is lost: the prepare stage begins anew"
    )
    cluster.step(70)
    assert cluster.get_condition("Suspended")[2].endswith(
        "the 65 s of attempt 1 of stage prepare are lost, the next begins anew"
    )


def test_a_run_with_a_checkpoint_says_where_it_goes_on() -> None:
    cluster = _train()
    [pod] = cluster.pods[-1:]
    cluster.tell(pod, 100, checkpoints=[objects.make_checkpoint(80)])
    _suspend(cluster)
    plan = cluster.plan(120)
    cluster.job["status"] = plan.status
    assert cluster.get_condition("Ready")[2].endswith("saves a checkpoint first; the newest so far is that of step 80")
    # The Job is deleted in the foreground: its pod tells what it saved before both are gone.
    cluster.children[-1]["metadata"]["deletionTimestamp"] = objects.time_text(120)
    text = objects.build_message("train", 1, 143, "PodDisrupted", checkpoints=[objects.make_checkpoint(97)], step=97)
    objects.end_pod(pod, 143, 125, text)
    cluster.step(126)
    cluster.remove_child(cluster.children[-1])
    cluster.step(130)
    assert cluster.get_condition("Suspended")[2].endswith("set it to false to go on; it goes on from step 97")
    _suspend(cluster, False)
    [resumed, *_] = cluster.step(400).events
    assert resumed.message == "runPolicy.suspend was taken back; it goes on from step 97"
    assert cluster.status.get("preemptionCount", 0) == 0, "the user's own wish is no interruption"


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

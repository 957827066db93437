"""What holds a run back or ends it: suspension, deadlines, the queue."""

from typing import Any

import cluster_objects as objects
import pytest
from cluster_objects import Cluster, to_prepare, to_train

from finetune_operator.runtime.plan import DeleteJob, PatchJob
from finetune_operator.settings import Settings

# Suspension.


def test_suspension_condemns_the_attempt_before_its_job_is_deleted() -> None:
    cluster = to_train()
    objects.start_pod(cluster.add_pod(21), 22)
    cluster.step(23)
    cluster.job["spec"]["runPolicy"]["suspend"] = True
    plan = cluster.plan(32)
    assert [type(action) for action in plan.actions] == [DeleteJob]
    assert plan.status["attempts"][-1]["cause"] == "Suspended"
    assert "endTime" not in plan.status["attempts"][-1]
    assert plan.status["phase"] == "Training"


def test_a_suspended_job_on_its_way_out_is_waited_for() -> None:
    cluster = to_train()
    objects.start_pod(cluster.add_pod(21), 22)
    cluster.step(23)
    cluster.job["spec"]["runPolicy"]["suspend"] = True
    cluster.step(32, acts=False)
    cluster.children[-1]["metadata"]["deletionTimestamp"] = objects.time_text(32)
    assert objects.list_kinds(cluster.step(33)) == []
    assert cluster.status["phase"] == "Training"
    # A change of mind comes too late for this attempt: it ends, and the next one begins.
    cluster.job["spec"]["runPolicy"]["suspend"] = False
    assert objects.list_kinds(cluster.step(34)) == []
    cluster.remove_child(cluster.children[-1])
    plan = cluster.step(40)
    assert objects.list_kinds(plan) == ["CreateJob"]
    assert [(item["cause"], item["counted"]) for item in cluster.status["attempts"][:-1]] == [
        ("Completed", False),
        ("Suspended", False),
    ]


def test_suspended_time_is_neither_running_nor_pending_time() -> None:
    cluster = to_train(spec__runPolicy={"pendingDeadlineSeconds": 100, "activeDeadlineSeconds": 100})
    objects.start_pod(cluster.add_pod(21), 22)
    cluster.step(23)
    cluster.job["spec"]["runPolicy"]["suspend"] = True
    cluster.step(42)
    plan = cluster.step(43)
    assert (cluster.status["phase"], objects.list_reasons(plan)) == ("Suspended", ["Suspended"])
    assert "pendingSince" not in cluster.status
    cluster.step(100_000)
    assert cluster.status["phase"] == "Suspended"
    cluster.job["spec"]["runPolicy"]["suspend"] = False
    plan = cluster.step(100_001)
    assert objects.list_reasons(plan) == ["Resumed", "JobCreated"]
    assert cluster.status["pendingSince"] == objects.time_text(100_001)


def test_a_result_that_comes_while_suspending_counts() -> None:
    cluster = to_train()
    cluster.step(21)
    cluster.job["spec"]["runPolicy"]["suspend"] = True
    cluster.step(22, acts=False)
    cluster.end(0, 60, objects.build_trained_message())
    cluster.step(61)
    assert cluster.status["phase"] == "Succeeded"


def test_a_failure_that_comes_while_suspending_does_not() -> None:
    cluster = to_train(spec__runPolicy={"backoffLimit": 0})
    cluster.step(21)
    cluster.job["spec"]["runPolicy"]["suspend"] = True
    cluster.step(22, acts=False)
    cluster.end(137, 60)
    cluster.step(61)
    assert (cluster.status["phase"], cluster.status.get("failedAttempts", 0)) == ("Suspended", 0)


# Deadlines.


def end_with_result(cluster: Cluster) -> None:
    """Let the pod commit its result while its Job is not complete yet."""
    pod = cluster.add_pod(21)
    objects.start_pod(pod, 30)
    cluster.step(40)
    objects.end_pod(pod, 0, 119, objects.build_trained_message())


@pytest.mark.parametrize("edit", [{}, {"suspend": True}], ids=["the deadline", "a wish to suspend"])
def test_a_committed_result_stands_whatever_comes_before_its_job_is_complete(edit: dict[str, Any]) -> None:
    cluster = to_train(spec__runPolicy={"activeDeadlineSeconds": 100, "pendingDeadlineSeconds": 1000})
    end_with_result(cluster)
    cluster.job["spec"]["runPolicy"] |= edit
    plan = cluster.step(130)
    assert (objects.list_kinds(plan), cluster.status["phase"]) == ([], "Training")
    objects.end_child(cluster.children[-1], "Complete", 131)
    cluster.step(131)
    assert cluster.status["phase"] == "Succeeded"


def test_a_pod_that_ran_while_nobody_looked_has_ended_the_wait_before_it() -> None:
    cluster = to_prepare(spec__runPolicy={"pendingDeadlineSeconds": 60})
    objects.end_pod(cluster.add_pod(5), 143, 200, disruption="Eviction: node drained")
    cluster.step(210)
    assert ("failure" in cluster.status, cluster.status["pendingSince"]) == (False, objects.time_text(200))
    cluster.step(260)
    assert cluster.status["failure"]["reason"] == "PendingDeadlineExceeded"


def test_a_pod_on_a_lost_node_runs_no_more_and_says_what_to_do() -> None:
    cluster = to_train(spec__runPolicy={"activeDeadlineSeconds": 1000, "pendingDeadlineSeconds": 2000})
    pod = cluster.add_pod(21)
    objects.start_pod(pod, 30)
    cluster.step(40)
    pod["metadata"]["deletionTimestamp"] = objects.time_text(100)
    assert cluster.step(110).requeue_after == 100 + 300 - 110 + 1
    assert cluster.status["phase"] == "Training"
    plan = cluster.step(401)
    message = f"pod {pod['metadata']['name']} should be gone since {objects.time_text(100)}; remove its node"
    assert cluster.get_condition("Running")[0] == "False"
    assert cluster.get_condition("Stalled")[:2] == ("True", "NodeUnreachable")
    assert cluster.get_condition("Ready")[2].startswith(message)
    assert cluster.status["attempts"][-1]["activeSeconds"] == 70, "from 30 to 100"
    assert objects.list_reasons(plan).count("NodeUnreachable") == 1
    cluster.step(402 + 2000)
    assert cluster.status["failure"]["reason"] == "PendingDeadlineExceeded"
    assert message in cluster.status["failure"]["message"]


def test_a_control_plane_whose_clock_goes_ahead_does_not_prolong_the_pause() -> None:
    cluster = to_prepare()
    objects.end_pod(cluster.add_pod(5), 75, 20)
    objects.end_child(cluster.children[0], "Failed", 620, "BackoffLimitExceeded")
    plan = cluster.step(21)
    assert cluster.status["attempts"][0]["endTime"] == objects.time_text(21)
    assert plan.requeue_after is not None
    assert plan.requeue_after <= 11


def test_running_time_is_summed_over_attempts_and_ends_the_run() -> None:
    cluster = to_train(spec__runPolicy={"activeDeadlineSeconds": 100, "pendingDeadlineSeconds": 1000})
    assert cluster.children[-1]["spec"]["activeDeadlineSeconds"] == 90 + 1000
    objects.start_pod(cluster.add_pod(21), 30)
    plan = cluster.step(40)
    assert plan.requeue_after == 80, "100 s less 10 s of prepare and 10 s of train"
    cluster.step(119)
    assert cluster.status["phase"] == "Training"
    plan = cluster.step(120)
    assert cluster.status["failure"]["reason"] == "DeadlineExceeded"
    assert objects.list_kinds(plan) == ["DeleteJob", "PatchJob"]
    assert cluster.status["attempts"][-1]["cause"] == "DeadlineExceeded"


def test_a_raised_deadline_reaches_the_live_job() -> None:
    cluster = to_prepare(spec__runPolicy={"activeDeadlineSeconds": 100, "pendingDeadlineSeconds": 1000})
    cluster.job["spec"]["runPolicy"]["activeDeadlineSeconds"] = 500
    plan = cluster.step(2)
    assert plan.actions == (
        PatchJob(cluster.children[0]["metadata"]["name"], "job-1", {"activeDeadlineSeconds": 1500}),
    )
    assert cluster.step(3).actions == ()


def test_the_prepare_stage_has_a_limit_of_its_own() -> None:
    settings = Settings(trainer_image="trainer:1", prepare_deadline_seconds=60)
    cluster = Cluster(settings)
    cluster.step(0)
    objects.start_pod(cluster.add_pod(1), 5)
    assert cluster.step(10).requeue_after == 55
    cluster.step(65)
    assert cluster.status["failure"]["reason"] == "DeadlineExceeded"
    assert "prepare" in cluster.status["failure"]["message"]


def test_the_jobs_own_deadline_ends_the_run_while_the_operator_is_down() -> None:
    cluster = to_train()
    cluster.step(21)
    objects.end_child(cluster.children[-1], "Failed", 9000, "DeadlineExceeded", "Job was active longer than specified")
    cluster.step(9001)
    assert cluster.status["failure"]["reason"] == "DeadlineExceeded"


def test_the_jobs_own_deadline_is_no_end_while_the_run_has_time_left() -> None:
    cluster = to_train(spec__runPolicy={"activeDeadlineSeconds": 1000, "pendingDeadlineSeconds": 1000})
    limit = cluster.children[-1]["spec"]["activeDeadlineSeconds"]
    pods = []
    for begin in (21, 921, 1821):
        # Each pod waits for 800 s and runs for 100 s, then its node is drained.
        pods.append(cluster.add_pod(begin))
        cluster.step(begin)
        objects.start_pod(pods[-1], begin + 800)
        cluster.step(begin + 801)
        if begin + 900 < 20 + limit:
            objects.end_pod(pods[-1], 143, begin + 899, disruption="drained")
            cluster.step(begin + 900)
    end = 20 + limit
    cluster.pods.clear()
    objects.end_child(cluster.children[-1], "Failed", end, "DeadlineExceeded")
    cluster.step(end)
    last = cluster.status["attempts"][-1]
    assert "failure" not in cluster.status
    assert (last["cause"], last["counted"], cluster.status.get("failedAttempts", 0)) == ("PodDisrupted", False, 0)
    assert objects.list_kinds(cluster.step(end + 30)) == ["CreateJob"]


def test_the_jobs_own_deadline_is_the_end_once_the_running_time_is_used_up() -> None:
    cluster = to_train(spec__runPolicy={"activeDeadlineSeconds": 100, "pendingDeadlineSeconds": 1000})
    objects.start_pod(cluster.add_pod(21), 30)
    cluster.step(31)
    cluster.pods.clear()
    objects.end_child(cluster.children[-1], "Failed", 1110, "DeadlineExceeded")
    cluster.step(5000)
    assert cluster.status["failure"]["reason"] == "DeadlineExceeded"
    assert cluster.status["attempts"][-1]["activeSeconds"] == 1080, "until the Job's end, not until it was noticed"


@pytest.mark.parametrize(("is_seen", "want"), [(True, 59), (False, 70)], ids=["the old pod is seen", "it is gone"])
def test_a_pod_swapped_between_two_passes_makes_no_running_time_of_the_wait(is_seen: bool, want: int) -> None:
    cluster = to_train()
    first = cluster.add_pod(21)
    objects.start_pod(first, 30)
    cluster.step(31)
    objects.end_pod(first, 143, 89, disruption="drained")
    objects.start_pod(cluster.add_pod(100), 500)
    if not is_seen:
        cluster.pods.remove(first)
    plan = cluster.step(510)
    assert objects.list_reasons(plan) == (["PodDisrupted"] if is_seen else [])
    assert cluster.status["attempts"][-1]["activeSeconds"] == want
    assert cluster.step(520).status == cluster.plan(520).status
    assert cluster.status["attempts"][-1]["activeSeconds"] == want, "once, not in every pass"
    cluster.end(0, 600, objects.build_trained_message())
    cluster.pods.pop(-2)
    cluster.step(600)
    assert cluster.status["attempts"][-1]["activeSeconds"] == want + 100


def test_a_clock_that_steps_back_makes_no_negative_time() -> None:
    cluster = to_train()
    objects.start_pod(cluster.add_pod(21), 30)
    cluster.step(31)
    plan = cluster.step(-600)
    assert plan.requeue_after is not None
    assert plan.requeue_after >= 0
    assert all(item["activeSeconds"] >= 0 for item in cluster.status["attempts"])


# Kueue.


def test_a_job_that_the_queue_holds_back_is_queued() -> None:
    cluster = to_train(spec__placement={"queueName": "team-a"})
    cluster.children[-1]["spec"]["suspend"] = True
    condition = {"type": "Suspended", "status": "True", "reason": "JobSuspended", "message": "Job suspended"}
    cluster.children[-1]["status"]["conditions"] = [condition]
    cluster.step(30)
    assert cluster.status["phase"] == "Queued"
    assert cluster.get_condition("Suspended")[:2] == ("True", "QueuedByKueue")
    assert cluster.get_condition("QuotaReserved")[0] == "False"
    assert cluster.get_condition("Reconciling")[0] == "True", "Kueue goes on by itself"


def test_preemption_uses_no_attempt_and_stops_the_clock() -> None:
    cluster = to_train()
    pod = cluster.add_pod(21)
    objects.start_pod(pod, 30)
    cluster.step(31)
    cluster.children[-1]["spec"]["suspend"] = True
    cluster.pods.remove(pod)
    plan = cluster.step(90)
    assert (objects.list_reasons(plan), plan.attempt_ends) == (["Preempted"], ("preempted",))
    assert (cluster.status["attempts"][-1]["activeSeconds"], cluster.status["pendingSince"]) == (
        60,
        objects.time_text(90),
    )
    cluster.children[-1]["spec"]["suspend"] = False
    objects.start_pod(cluster.add_pod(200), 210)
    cluster.step(211)
    cluster.step(230)
    assert (cluster.status["phase"], len(cluster.status["attempts"])) == ("Training", 2)

"""The order of things: stages, crashes, strangers, the end."""

from typing import Any

import cluster_objects as objects
import pytest
from cluster_objects import Cluster, to_prepare, to_train

from finetune_api.kinds.finetunejob.status import ConditionType
from finetune_operator.runtime.plan import PatchJob


def test_the_newest_pod_counts_when_the_first_was_disrupted() -> None:
    cluster = to_prepare()
    first = cluster.add_pod(0)
    objects.start_pod(first, 1)
    cluster.step(2)
    objects.end_pod(first, 143, 30, disruption="Eviction: node drained")
    plan = cluster.step(31)
    assert objects.list_reasons(plan) == ["PodDisrupted"]
    assert plan.attempt_ends == ("disruption",)
    assert (cluster.status["attempts"][0]["activeSeconds"], cluster.status["phase"]) == (29, "Validating")
    second = cluster.add_pod(40)
    objects.start_pod(second, 50)
    cluster.step(51)
    objects.end_pod(second, 0, 70, objects.build_prepared_message())
    objects.end_child(cluster.children[0], "Complete", 70)
    cluster.step(70)
    assert cluster.status["attempts"][0]["activeSeconds"] == 49
    assert cluster.status["preparedSHA256"] == objects.PREPARED_SHA256


# Stages.


def test_the_first_visit_sets_every_condition_and_creates_the_prepare_job() -> None:
    cluster = Cluster()
    plan = cluster.step(0)
    assert {item["type"] for item in cluster.status["conditions"]} == {item.value for item in ConditionType}
    assert objects.list_kinds(plan) == ["CreateJob"]
    assert objects.list_reasons(plan) == ["JobCreated"]
    assert cluster.status["attempts"] == [
        {
            "number": 1,
            "stage": "prepare",
            "job": cluster.children[0]["metadata"]["name"],
            "activeSeconds": 0,
            "counted": False,
        }
    ]
    assert (cluster.status["attemptCount"], cluster.status["phase"], cluster.status["observedGeneration"]) == (
        1,
        "Pending",
        1,
    )


def test_prepare_leads_to_train_with_its_digest() -> None:
    cluster = to_train()
    stored = cluster.status
    assert (stored["preparedAttempt"], stored["preparedSHA256"]) == (1, objects.PREPARED_SHA256)
    assert (stored["runDigest"], stored["data"]["trainRows"]) == ("sha256:" + "d" * 64, 2000)
    assert cluster.get_condition("Validated")[0] == "True"
    assert [(item["stage"], item["number"]) for item in stored["attempts"]] == [("prepare", 1), ("train", 1)]
    config = cluster.children[-1]["spec"]["template"]["metadata"]["annotations"]["finetune.dev/run-config"]
    assert f'"prepared":{{"attempt":1,"sha256":"{objects.PREPARED_SHA256}"}}' in config


def test_no_gpu_is_asked_for_before_the_prepare_stage_succeeded() -> None:
    cluster = to_train(spec__resources={"gpus": 2})
    limits = [child["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"] for child in cluster.children]
    assert ["nvidia.com/gpu" in item for item in limits] == [False, True]


def test_the_artifacts_of_an_earlier_attempt_are_reported_where_they_lie() -> None:
    cluster = to_train()
    cluster.step(21)
    cluster.end(143, 40)
    cluster.step(40)
    cluster.step(60)
    cluster.step(61)
    text = objects.build_trained_message(2).replace("/attempts/2/", "/attempts/1/")
    cluster.end(0, 80, text)
    cluster.step(80)
    assert cluster.status["phase"] == "Succeeded"
    assert cluster.status["artifacts"]["uri"].endswith("/attempts/1/model/")


def test_early_stopping_is_a_success_by_its_own_name() -> None:
    cluster = to_train()
    cluster.step(21)
    text = objects.build_trained_message(1).replace('"Completed"', '"EarlyStopped"')
    cluster.end(0, 60, text)
    plan = cluster.step(60)
    assert cluster.get_condition("Succeeded")[:2] == ("True", "EarlyStopped")
    assert objects.list_reasons(plan) == ["Succeeded"]


def test_a_message_that_is_gone_is_settled_by_another_attempt_that_counts_nothing() -> None:
    cluster = to_train()
    cluster.step(21)
    objects.end_child(cluster.children[-1], "Complete", 60)
    cluster.step(60)
    assert (cluster.status["attempts"][-1]["cause"], cluster.status.get("failedAttempts", 0)) == ("MessageLost", 0)
    cluster.step(80)
    assert (cluster.status["attempts"][-1]["stage"], cluster.status["attempts"][-1]["number"]) == ("train", 2)


def test_a_failed_job_without_a_pod_counts() -> None:
    cluster = to_train()
    cluster.step(21)
    objects.end_child(cluster.children[-1], "Failed", 60, "BackoffLimitExceeded", "reached")
    cluster.step(60)
    assert (cluster.status["attempts"][-1]["cause"], cluster.status["failedAttempts"]) == ("Internal", 1)


# Crashes and strangers.


def test_a_crash_between_status_and_create_is_made_good_without_a_new_attempt() -> None:
    cluster = Cluster()
    cluster.step(0, acts=False)
    plan = cluster.step(5)
    assert objects.list_kinds(plan) == ["CreateJob"]
    assert (len(cluster.status["attempts"]), objects.list_reasons(plan)) == (1, [])


def test_a_job_seen_once_and_gone_is_deleted_not_missing() -> None:
    cluster = to_prepare()
    cluster.step(1)
    cluster.remove_child(cluster.children[0])
    plan = cluster.step(2)
    assert cluster.status["attempts"][0]["cause"] == "JobDeleted"
    assert (objects.list_reasons(plan), plan.attempt_ends) == (["AttemptFailed"], ("error",))
    assert cluster.step(3).actions == (), "counted once, not at every sight"
    assert cluster.status["failedAttempts"] == 1


def test_a_job_of_the_same_name_but_another_uid_is_not_ours_any_more() -> None:
    cluster = to_prepare()
    cluster.step(1)
    cluster.children[0]["metadata"]["uid"] = "another"
    plan = cluster.step(2)
    assert cluster.status["attempts"][0]["cause"] == "JobDeleted"
    assert objects.list_kinds(plan) == ["DeleteJob"], "it must be gone before the next attempt"
    assert objects.list_kinds(cluster.step(31)) == ["CreateJob"]


def test_a_strangers_job_ends_the_run_and_stays() -> None:
    cluster = Cluster()
    cluster.step(0, acts=False)
    name = cluster.status["attempts"][0]["job"]
    cluster.children = [{"metadata": {"name": name, "namespace": "demo", "uid": "stranger"}, "spec": {}, "status": {}}]
    plan = cluster.step(1)
    assert cluster.status["failure"]["reason"] == "Internal"
    assert name in cluster.status["failure"]["message"]
    assert plan.actions == ()


def test_the_next_attempt_waits_for_pods_that_are_still_there() -> None:
    cluster = to_prepare()
    pod = cluster.add_pod(0)
    objects.start_pod(pod, 0)
    cluster.step(1)
    cluster.children.clear()
    cluster.step(2)
    plan = cluster.step(100)
    assert (objects.list_kinds(plan), cluster.status["phase"]) == ([], "Pending")
    assert "former attempt" in cluster.get_condition("Ready")[2]
    cluster.pods.clear()
    assert objects.list_kinds(cluster.step(101)) == ["CreateJob"]


def _leave_pod(**edits: Any) -> Cluster:
    """Return a cluster whose Job was deleted at 1 s while its pod goes on."""
    cluster = to_prepare(**edits)
    objects.start_pod(cluster.add_pod(0), 0)
    cluster.step(1)
    cluster.children.clear()
    return cluster


def test_waiting_for_pods_of_a_former_attempt_ends_with_the_pending_deadline() -> None:
    cluster = _leave_pod(spec__runPolicy={"pendingDeadlineSeconds": 60})
    plan = cluster.step(100)
    assert (cluster.status["pendingSince"], plan.requeue_after) == (objects.time_text(100), 60)
    assert cluster.step(159).requeue_after == 1
    cluster.step(160)
    assert cluster.status["failure"]["reason"] == "PendingDeadlineExceeded"
    assert cluster.status["failure"]["message"].endswith("60 s: the pods of the former attempt are still there")


def test_the_pause_before_an_attempt_is_no_waiting_for_a_pod() -> None:
    cluster = _leave_pod(spec__runPolicy={"pendingDeadlineSeconds": 5})
    cluster.step(2)
    cluster.pods.clear()
    cluster.step(3)
    assert (cluster.get_condition("Ready")[1], "pendingSince" in cluster.status) == ("Retrying", False)
    cluster.step(100)
    assert cluster.status["pendingSince"] == objects.time_text(100)


def test_a_former_attempts_pod_that_cannot_be_removed_stalls_the_run() -> None:
    cluster = _leave_pod()
    cluster.pods[0]["metadata"]["deletionTimestamp"] = objects.time_text(10)
    assert cluster.step(100).requeue_after == 10 + 300 - 100 + 1
    plan = cluster.step(311)
    assert objects.list_reasons(plan) == ["NodeUnreachable"]
    assert cluster.get_condition("Stalled")[:2] == ("True", "NodeUnreachable")
    assert "taint it out-of-service" in cluster.get_condition("Stalled")[2]


LEFT_PODS = [
    ("one whose Job was deleted in the background", {}, True),
    ("one whose Job was deleted without it", {"ownerReferences": []}, True),
    ("a stranger's that bears our labels", {"ownerReferences": [], "labels": {"finetune.dev/uid": objects.UID}}, False),
    (
        "one of a Job of somebody else",
        {"ownerReferences": [{"kind": "Job", "name": "else", "uid": "else", "controller": True}]},
        False,
    ),
    (
        "one of something that is no Job",
        {"ownerReferences": [{"kind": "ReplicaSet", "name": "else", "uid": "else", "controller": True}]},
        False,
    ),
]


@pytest.mark.parametrize(("sentence", "metadata", "is_awaited"), LEFT_PODS, ids=[case[0] for case in LEFT_PODS])
def test_only_pods_of_this_run_are_waited_for(sentence: str, metadata: Any, is_awaited: bool) -> None:
    cluster = _leave_pod()
    cluster.step(2)
    [attempt] = cluster.status["attempts"]
    [pod] = cluster.pods
    pod["metadata"]["labels"]["batch.kubernetes.io/job-name"] = attempt["job"]
    pod["metadata"] |= metadata
    assert objects.list_kinds(cluster.step(100)) == ([] if is_awaited else ["CreateJob"])


def test_a_pod_that_cannot_be_removed_is_told() -> None:
    cluster = to_prepare()
    pod = cluster.add_pod(0)
    objects.start_pod(pod, 0)
    pod["metadata"]["deletionTimestamp"] = objects.time_text(10)
    cluster.step(100)
    assert cluster.get_condition("TerminationStuck")[0] == "False"
    plan = cluster.step(10 + 301)
    assert cluster.get_condition("TerminationStuck")[:2] == ("True", "NodeUnreachable")
    assert "NodeUnreachable" in objects.list_reasons(plan)


def test_an_object_on_its_way_out_is_left_to_the_garbage_collector() -> None:
    cluster = to_prepare()
    before = cluster.status
    cluster.job["metadata"]["deletionTimestamp"] = objects.time_text(5)
    assert cluster.step(6).actions == ()
    assert cluster.status == before


# The end.


def test_after_the_end_only_the_ttl_is_cared_for() -> None:
    cluster = to_train()
    cluster.step(21)
    cluster.end(0, 60, objects.build_trained_message())
    plan = cluster.step(60)
    assert objects.list_kinds(plan) == ["PatchJob", "PatchJob"]
    final = cluster.status
    assert cluster.step(100).actions == ()
    cluster.job["spec"]["runPolicy"]["ttlSecondsAfterFinished"] = 5
    assert [action.spec for action in cluster.step(110).actions if isinstance(action, PatchJob)] == [
        {"ttlSecondsAfterFinished": 5}
    ] * 2
    cluster.children.clear()
    cluster.pods.clear()
    assert cluster.step(120).actions == ()
    assert cluster.status == final


def test_a_crash_before_the_clean_up_is_made_good() -> None:
    cluster = to_train(spec__runPolicy={"pendingDeadlineSeconds": 60})
    cluster.step(21)
    cluster.step(90, acts=False)
    assert cluster.status["failure"]["reason"] == "PendingDeadlineExceeded"
    assert objects.list_kinds(cluster.step(100)) == ["DeleteJob", "PatchJob"]


def test_a_finished_run_follows_the_generation_with_every_condition_and_nothing_else() -> None:
    cluster = to_prepare()
    cluster.step(1)
    cluster.end(65, 20, objects.build_message("prepare", 1, 65, "DataError"))
    cluster.step(20)
    final = cluster.status
    cluster.job["metadata"]["generation"] = 7
    cluster.job["spec"]["runPolicy"]["suspend"] = True
    cluster.step(30)
    seen = [item | {"observedGeneration": 7} for item in final["conditions"]]
    assert cluster.status == final | {"observedGeneration": 7, "conditions": seen}

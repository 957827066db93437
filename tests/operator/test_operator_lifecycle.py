"""Whole lives of FineTuneJobs: a real API server, the real Job controller, a real operator process; pods are played."""

import json

import pytest
from cluster_objects import forget_generation
from manifests import build_object
from operator_driver import JOB, Operator, Stage, get_conditions, is_gone

from finetune_api import group, names
from finetune_devcluster import api_client, waiting
from finetune_devcluster.api_client import Kind

pytestmark = pytest.mark.contract

QUOTA, EVENT = Kind("v1", "ResourceQuota"), Kind("v1", "Event")


def _wait_until(what: str, check: object, seconds: float = 20.0) -> None:
    def probe() -> None:
        if not check():  # type: ignore[operator]  # a callable
            raise waiting.NotYetError("not yet")

    waiting.wait_for(what, probe, seconds)


def test_prepare_then_train_then_succeeded(stage: Stage, operator: Operator) -> None:
    run = stage.submit("happy")
    run.wait_pod("prepare").start()
    validating = run.wait("a running prepare pod", lambda now: get_conditions(now).get("Running", ("",))[0] == "True")
    assert validating["phase"] == "Validating"
    run.play_prepare()
    run.wait_pod("train").start()
    training = run.wait_phase("Training")
    assert (training["preparedAttempt"], training["preparedSHA256"]) == (1, "a" * 64)
    assert training["progress"]["percent"] == 0
    run.play_train()
    final = run.wait_phase("Succeeded")
    assert {name: value for name, (value, _) in get_conditions(final).items()} == {
        "Ready": "True",
        "Reconciling": "False",
        "Stalled": "False",
        "Succeeded": "True",
        "Failed": "False",
        "Finished": "True",
        "Suspended": "False",
        "Validated": "True",
        "JobCreated": "True",
        "QuotaReserved": "False",
        "Running": "False",
        "CheckpointSaved": "False",
        "ArtifactsUploaded": "True",
        "TerminationStuck": "False",
    }
    uid = run.uid
    assert final["artifacts"] == {
        "uri": f"s3://runs/movies/runs/{uid}/attempts/1/model/",
        "manifestURI": f"s3://runs/movies/runs/{uid}/manifest.json",
        "manifestSHA256": "b" * 64,
    }
    assert final["memory"] == {"predictedPeak": "1.9Gi", "measuredPeak": "1.7Gi"}
    assert final["data"]["trainRows"] == 2000
    assert final["resolved"] == {"totalSteps": "250", "learningRate": "1e-4"}
    assert final["warnings"] == ["3 rows were cut"]
    assert final["metrics"]["tuned"] == [{"name": "accuracy", "value": "0.846", "split": "test"}]
    assert (final["progress"]["percent"], final["progress"]["step"], final["progress"]["totalSteps"]) == (100, 250, 250)
    assert [(item["stage"], item["number"], item["cause"], item["counted"]) for item in final["attempts"]] == [
        ("prepare", 1, "Completed", False),
        ("train", 1, "Completed", False),
    ]
    assert "failure" not in final
    assert "pendingSince" not in final
    run.wait_for_events("JobCreated", "Validated", "Running", "Succeeded")
    # The children expire only after the end, by Kubernetes' own hand.
    _wait_until(
        "TTL", lambda: [job["spec"].get("ttlSecondsAfterFinished") for job in run.read_jobs()] == [86400, 86400]
    )
    assert operator.fetch("/healthz", operator.health_port)[0] == 200
    series = operator.read_series()
    label = f'namespace="{stage.namespace}"'
    assert series[f'finetune_jobs_finished_total{{{label},reason="Completed",result="succeeded"}}'] >= 1
    assert series[f'finetune_jobs_finished_total{{{label},reason="DataError",result="failed"}}'] >= 0
    assert not any('name="happy"' in key for key in series), "a finished job has no gauges of its own"


def test_the_run_config_reaches_the_pod_as_an_annotation(stage: Stage) -> None:
    run = stage.submit("config")
    run.wait_pod("prepare")
    [pod] = run.read_pods()
    config = json.loads(pod["metadata"]["annotations"][group.ANNOTATION_RUN_CONFIG])
    assert config["job"] == {"namespace": stage.namespace, "name": "config", "uid": run.uid, "attempt": 1}
    assert (config["stage"], config["spec"]["task"]) == ("prepare", "SequenceClassification")
    assert not any("s3-credentials" in json.dumps(job["metadata"]) for job in run.read_jobs())
    run.delete()


FINAL = [
    (64, "ConfigError", "the program was called wrongly"),
    (65, "DataError", "train.jsonl line 17: label is missing"),
    (65, "ModelError", "the model is an encoder"),
    (66, "ReferenceNotFound", "s3://datasets/movies/train.jsonl isn't there"),
    (77, "AccessDenied", "s3://datasets refused the credentials"),
    (78, "ConfigError", "spec can't work"),
    (79, "CUDAOutOfMemory", "the smallest micro-batch doesn't fit"),
    (80, "Diverged", "loss is NaN at step 12"),
]


def test_what_the_user_must_fix_ends_the_run_at_once(stage: Stage) -> None:
    runs = [stage.submit(f"final-{code}-{reason.lower()}") for code, reason, _ in FINAL]
    for run, (code, reason, message) in zip(runs, FINAL, strict=True):
        run.wait_pod("prepare").fail(code, reason, message, "Do this.")
    for run, (code, reason, message) in zip(runs, FINAL, strict=True):
        final = run.wait_phase("Failed")
        wanted = {"reason": reason, "message": message, "remedy": "Do this.", "retryable": False, "exitCode": code}
        assert final["failure"] == wanted
        conditions = get_conditions(final)
        assert (conditions["Failed"], conditions["Stalled"]) == (("True", reason), ("True", reason))
        assert conditions["Reconciling"][0] == "False"
        assert len(run.read_jobs()) == 1


COUNTED = [
    (137, "OOMKilled", "OutOfMemory"),
    (69, "", "StorageUnavailable"),
    (137, "", "Internal"),
    (1, "", "Internal"),
]


def test_a_counted_failure_without_retries_left_fails(stage: Stage) -> None:
    policy = {"backoffLimit": 0}
    runs = [stage.submit(f"spent-{index}", spec__runPolicy=policy) for index in range(len(COUNTED))]
    for run, (code, container_reason, _) in zip(runs, COUNTED, strict=True):
        run.wait_pod("prepare").end(code, "some words, no JSON", container_reason)
    for run, (code, _, reason) in zip(runs, COUNTED, strict=True):
        final = run.wait_phase("Failed")
        assert (final["failure"]["reason"], final["failure"]["exitCode"]) == (reason, code)
        assert (final["failedAttempts"], final["attempts"][0]["counted"]) == (1, True)


def test_exit_code_0_without_proof_is_no_success(stage: Stage) -> None:
    run = stage.submit("proofless")
    run.play_prepare()
    run.wait_pod("train").succeed({})
    final = run.wait_phase("Failed")
    assert final["failure"]["reason"] == "ArtifactMissing"
    assert "artifacts" not in final


def test_a_job_deleted_by_hand_is_made_again_once_counted(stage: Stage) -> None:
    run = stage.submit("deleted-by-hand", spec__runPolicy={"backoffLimit": 1})
    run.wait_pod("prepare")
    [job] = run.read_jobs()
    run.wait("the uid", lambda now: bool(now["attempts"][0].get("jobUID")))
    run.delete_child(job["metadata"]["name"])
    retrying = run.wait("the next attempt's time", lambda now: now.get("failedAttempts") == 1)
    assert (retrying["attempts"][0]["cause"], retrying["phase"]) == ("JobDeleted", "Pending")
    assert get_conditions(retrying)["Ready"] == ("False", "Retrying")
    run.wait_pod("prepare", 2, seconds=30)
    names = [item["metadata"]["name"] for item in run.read_jobs()]
    assert names == [job["metadata"]["name"].removesuffix("-1") + "-2"]
    run.wait("the uid", lambda now: bool(now["attempts"][-1].get("jobUID")))
    run.delete_child(names[0])
    final = run.wait_phase("Failed")
    assert final["failure"]["reason"] == "JobDeleted"


def test_an_image_that_cannot_be_pulled_stalls_the_run(stage: Stage) -> None:
    run = stage.submit("no-image")
    run.wait_pod("prepare").hold("ImagePullBackOff", 'Back-off pulling image "nowhere/trainer:1"')
    # Until the test played the kubelet, the pod had no node: with a grace of 2 s that may have been told before.
    stalled = run.wait("stalled", lambda now: get_conditions(now)["Stalled"] == ("True", "ImagePullFailed"))
    assert get_conditions(stalled)["Reconciling"][0] == "False"
    # It was no end: once the image is there the run goes on.
    run.wait_pod("prepare").start()
    run.wait("moving", lambda now: get_conditions(now)["Stalled"][0] == "False")
    run.delete()


def test_a_missing_secret_is_named(stage: Stage) -> None:
    run = stage.submit("no-secret")
    run.wait_pod("prepare").hold("CreateContainerConfigError", 'secret "s3-credentials" not found')
    # As above: that the pod has no node may have been told before.
    stalled = run.wait("stalled", lambda now: get_conditions(now)["Stalled"] == ("True", "ReferenceNotFound"))
    assert get_conditions(stalled)["Ready"] == ("False", "ReferenceNotFound")
    [message] = [item["message"] for item in stalled["conditions"] if item["type"] == "Stalled"]
    assert message == 'the container can\'t be set up: secret "s3-credentials" not found'
    run.wait_for_events("ReferenceNotFound")
    run.delete()


def test_a_pod_that_fits_on_no_node_is_queued_and_then_stalled(stage: Stage) -> None:
    run = stage.submit("nowhere", spec__resources={"gpus": 0}, spec__runPolicy={"pendingDeadlineSeconds": 8})
    queued = run.wait_phase("Queued")
    assert "no nodes available" in next(item["message"] for item in queued["conditions"] if item["type"] == "Ready")
    run.wait("stalled", lambda now: get_conditions(now)["Stalled"] == ("True", "Unschedulable"))
    final = run.wait_phase("Failed", 30)
    assert final["failure"]["reason"] == "PendingDeadlineExceeded"
    assert "no nodes available" in final["failure"]["message"]
    _wait_until("no Job left", lambda: run.read_jobs() == [])


def test_a_quota_that_refuses_the_pod_stalls_the_run_until_it_is_raised(restricted_stage: Stage) -> None:
    client, namespace = restricted_stage.client, restricted_stage.namespace
    client.create(build_object(QUOTA, "none", namespace, spec={"hard": {"pods": "0"}}))
    run = restricted_stage.submit("quota")
    stalled = run.wait("stalled", lambda now: get_conditions(now).get("Stalled", ("",))[0] == "True", 40)
    assert get_conditions(stalled)["Stalled"] == ("True", "QuotaExceeded")
    client.delete(QUOTA, "none", namespace)
    run.delete()


def test_a_quota_that_refuses_the_job_stalls_the_run_until_it_is_raised(restricted_stage: Stage) -> None:
    client, namespace = restricted_stage.client, restricted_stage.namespace
    client.create(build_object(QUOTA, "jobs", namespace, spec={"hard": {"count/jobs.batch": "0"}}))
    run = restricted_stage.submit("job-quota")
    stalled = run.wait("stalled", lambda now: get_conditions(now).get("Stalled", ("",))[0] == "True", 40)
    assert get_conditions(stalled)["Stalled"] == ("True", "QuotaExceeded")
    assert get_conditions(stalled)["Reconciling"][0] == "False"
    client.delete(QUOTA, "jobs", namespace)
    run.wait_pod("prepare", seconds=60)
    assert run.read_events().count("QuotaExceeded") == 1
    run.delete()


def test_pods_satisfy_the_pod_security_level_restricted(restricted_stage: Stage) -> None:
    label = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    restricted_stage.client.patch(api_client.NAMESPACE, restricted_stage.namespace, label)
    run = restricted_stage.submit("restricted")
    run.play_prepare()
    run.play_train()
    run.wait_phase("Succeeded")


def test_suspension_stops_the_pods_and_resuming_goes_on(stage: Stage) -> None:
    run = stage.submit("pause")
    run.play_prepare()
    run.wait_pod("train").start()
    run.wait_phase("Training")
    run.patch({"spec": {"runPolicy": {"suspend": True}}})
    held = run.wait_phase("Suspended")
    assert get_conditions(held)["Suspended"] == ("True", "UserRequested")
    assert {name: get_conditions(held)[name][0] for name in ("Reconciling", "Stalled")} == {
        "Reconciling": "False",
        "Stalled": "False",
    }
    assert (held["attempts"][-1]["cause"], held["attempts"][-1]["counted"]) == ("Suspended", False)
    assert [job["metadata"]["labels"][group.LABEL_STAGE] for job in run.read_jobs()] == ["prepare"]
    run.patch({"spec": {"runPolicy": {"suspend": False}}})
    run.play_train(2)
    final = run.wait_phase("Succeeded")
    assert final.get("failedAttempts", 0) == 0
    run.wait_for_events("Suspended", "Resumed")


def test_a_run_created_suspended_starts_nothing(stage: Stage) -> None:
    run = stage.submit("later", spec__runPolicy={"suspend": True})
    held = run.wait_phase("Suspended")
    assert (held.get("attempts", []), run.read_jobs()) == ([], [])
    run.patch({"spec": {"runPolicy": {"suspend": False}}})
    run.wait_pod("prepare")
    run.delete()


@pytest.mark.parametrize("propagation", ["Background", "Foreground", "Orphan"])
def test_deleting_a_run_leaves_nothing_behind(stage: Stage, propagation: str) -> None:
    run = stage.submit(f"gone-{propagation.lower()}")
    run.wait_pod("prepare").start()
    run.delete(propagation)
    _wait_until("gone", lambda: is_gone(run.read))
    _wait_until("no children", lambda: run.read_jobs() == [] and run.read_pods() == [], 40)


def test_a_finished_run_never_gets_a_child_again(stage: Stage) -> None:
    run = stage.submit("finished", spec__runPolicy={"ttlSecondsAfterFinished": 0})
    run.wait_pod("prepare").fail(65, "DataError", "bad rows")
    before = run.wait_phase("Failed")
    _wait_until("children removed by their TTL", lambda: run.read_jobs() == [], 30)
    run.patch({"spec": {"runPolicy": {"suspend": True}}})
    run.patch({"spec": {"runPolicy": {"suspend": False}}})
    generation = run.read()["metadata"]["generation"]
    after = run.wait("the new generation", lambda now: now["observedGeneration"] == generation)
    assert forget_generation(after) == forget_generation(before)
    assert {item["observedGeneration"] for item in after["conditions"]} == {generation}
    assert run.read_jobs() == []


def test_an_image_that_is_not_allowed_is_refused(stage: Stage) -> None:
    run = stage.submit("image", spec__trainer={"image": "evil.example.com/trainer:1"})
    final = run.wait_phase("Failed")
    assert final["failure"]["reason"] == "ConfigError"
    assert "registry.example.com/finetune-trainer:test" in final["failure"]["message"]
    assert run.read_jobs() == []


def test_a_foreign_job_under_our_name_is_left_alone(stage: Stage) -> None:
    run = stage.submit("taken", spec__runPolicy={"suspend": True})
    run.wait_phase("Suspended")
    name = names.build_child_name("taken", run.uid, "prepare", 1)
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "x", "image": "x"}]}}
    stage.client.create(build_object(JOB, name, stage.namespace, spec={"template": template}))
    run.patch({"spec": {"runPolicy": {"suspend": False}}})
    final = run.wait_phase("Failed")
    assert final["failure"]["reason"] == "Internal"
    assert name in final["failure"]["message"]
    assert not is_gone(lambda: stage.client.get(JOB, name, stage.namespace))


def test_the_resync_leaves_a_job_alone_that_only_bears_our_labels(stage: Stage) -> None:
    run = stage.submit("orphaned")
    run.wait_pod("prepare")
    [ours] = run.read_jobs()
    labels = dict(ours["metadata"]["labels"])
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "x", "image": "x"}]}}
    stranger = build_object(JOB, "important", stage.namespace, spec={"template": template})
    stranger["metadata"]["labels"] = labels
    stage.client.create(stranger)
    run.delete("Orphan")
    name = ours["metadata"]["name"]
    _wait_until("the deletion of the orphan", lambda: is_gone(lambda: stage.client.get(JOB, name, stage.namespace)), 40)
    assert not is_gone(lambda: stage.client.get(JOB, "important", stage.namespace))
    stage.client.delete(JOB, "important", stage.namespace)


def test_what_keeps_a_pod_from_starting_is_named_within_a_minute(stage: Stage) -> None:
    run = stage.submit("no-sandbox")
    pod = run.wait_pod("prepare")
    pod.hold("ContainerCreating", "")
    [manifest] = [item for item in run.read_pods() if item["metadata"]["name"] == pod.name]
    uid = manifest["metadata"]["uid"]
    told = {
        "involvedObject": {"kind": "Pod", "name": pod.name, "namespace": stage.namespace, "uid": uid},
        "reason": "FailedCreatePodSandBox",
        "message": "Failed to create pod sandbox: container init was OOM-killed (memory limit too low?)",
        "type": "Warning",
        "lastTimestamp": "2036-01-01T00:00:00Z",
    }
    event = build_object(EVENT, "no-sandbox.1", stage.namespace)
    stage.client.create(event | told)
    final = run.wait("stalled", lambda now: get_conditions(now)["Stalled"] == ("True", "FailedCreatePodSandBox"), 60)
    assert final["reason"] == "FailedCreatePodSandBox"
    run.wait_for_events("FailedCreatePodSandBox")
    run.delete()


def test_artifacts_outside_of_the_run_are_no_success(stage: Stage) -> None:
    run = stage.submit("forged")
    run.play_prepare()
    run.play_train(artifactsURI="s3://evil/model/")
    final = run.wait_phase("Failed")
    assert final["failure"]["reason"] == "ArtifactMissing"
    assert "artifacts" not in final


def test_a_disrupted_pod_is_replaced_inside_its_job(stage: Stage) -> None:
    run = stage.submit("disrupted", spec__runPolicy={"backoffLimit": 0})
    first = run.wait_pod("prepare").start()
    run.wait("running", lambda now: get_conditions(now)["Running"][0] == "True")
    moment = {"lastTransitionTime": "2026-01-01T00:00:00Z", "reason": "EvictionByEvictionAPI", "message": "drained"}
    first.end(143, conditions=[{"type": "DisruptionTarget", "status": "True", **moment}])
    second = run.wait_pod("prepare", 1, other_than=[first.name], seconds=40)
    assert second.name != first.name
    current = run.read_status()
    assert (len(current["attempts"]), current.get("failedAttempts", 0)) == (1, 0)
    run.delete()


def test_a_pod_evicted_for_its_own_disk_use_fails_with_the_field_to_raise(stage: Stage) -> None:
    run = stage.submit("disk")
    fields = {"reason": "Evicted", "message": 'Usage of EmptyDir volume "scratch" exceeds the limit "1Gi". '}
    run.wait_pod("prepare").end(137, pod_fields=fields)
    final = run.wait_phase("Failed")
    assert final["failure"]["reason"] == "ConfigError"
    assert "spec.resources.scratch" in final["failure"]["remedy"]


def test_a_job_held_back_as_kueue_does_is_queued_and_uses_no_attempt(stage: Stage) -> None:
    run = stage.submit("queued")
    run.play_prepare()
    run.wait_pod("train").start()
    run.wait_phase("Training")
    name = run.read_jobs()[-1]["metadata"]["name"]
    for _ in range(2):
        stage.client.patch(JOB, name, {"spec": {"suspend": True}}, stage.namespace)
        queued = run.wait_phase("Queued")
        assert get_conditions(queued)["Suspended"] == ("True", "QueuedByKueue")
        assert get_conditions(queued)["QuotaReserved"][0] == "False"
        stage.client.patch(JOB, name, {"spec": {"suspend": False}}, stage.namespace)
        run.wait_pod("train").start()
        run.wait_phase("Training")
    run.play_train()
    final = run.wait_phase("Succeeded")
    assert len(final["attempts"]) == 2
    run.wait_for_events("Preempted")

"""What is refused before anything runs, what must not be, and how the outcome looks to kstatus."""

import json
from typing import Any

import cluster_objects as objects
import pytest
from cluster_objects import SETTINGS, Cluster, to_prepare, to_train
from manifests import Manifest

from finetune_api import group
from finetune_operator.runtime.plan import CreateJob


def _kinds(plan: Any) -> list[str]:
    return [type(action).__name__ for action in plan.actions]


REFUSED: list[tuple[str, dict[str, Any], str, str]] = [
    (
        "a rule between fields",
        {"spec__training": {"epochs": "2", "maxSteps": 5}},
        "InvalidSpec",
        "spec.training.maxSteps (5) must be absent",
    ),
    (
        "a value out of range",
        {"spec__resources": {"gpus": 99}},
        "InvalidSpec",
        "spec.resources.gpus (99) must be at most 16",
    ),
    (
        "an image nobody allowed",
        {"spec__trainer": {"image": "evil.example.com/x:1"}},
        "ConfigError",
        "registry.example.com/finetune",
    ),
    (
        "an open endpoint",
        {"spec__storage": {"endpointURL": "http://s3.example.com"}},
        "ConfigError",
        "must begin with https://",
    ),
]


@pytest.mark.parametrize(("sentence", "edits", "reason", "text"), REFUSED, ids=[case[0] for case in REFUSED])
def test_a_spec_that_cannot_run_is_refused_before_anything_is_created(
    sentence: str, edits: dict[str, Any], reason: str, text: str
) -> None:
    cluster = Cluster(**edits)
    plan = cluster.step(0)
    assert plan.actions == ()
    failure = cluster.status["failure"]
    assert failure["reason"] == reason
    assert text in failure["message"]
    assert cluster.status["phase"] == "Failed"


def test_all_errors_of_a_spec_are_told_at_once() -> None:
    cluster = Cluster(spec__training={"epochs": "2", "maxSteps": 5}, spec__output={"uri": "s3://runs/x", "merge": True})
    cluster.step(0)
    assert "spec.training.maxSteps" in cluster.status["failure"]["message"]
    assert "spec.output.merge" in cluster.status["failure"]["message"]


@pytest.mark.parametrize(
    "url", ["https://s3.example.com", "http://s3.demo.svc:8333", "http://s3.demo.svc.cluster.local", ""]
)
def test_endpoints_with_encryption_or_inside_the_cluster_are_allowed(url: str) -> None:
    cluster = Cluster(spec__storage={"endpointURL": url})
    assert _kinds(cluster.step(0)) == ["CreateJob"]


def test_a_run_that_lives_is_not_refused_by_rules_of_a_later_operator() -> None:
    cluster = to_prepare(spec__trainer={"image": ""})
    cluster.job["spec"]["output"]["merge"] = True
    assert _kinds(cluster.step(5)) == []
    assert "failure" not in cluster.status


def test_a_field_of_a_newer_crd_stalls_a_new_run_and_ends_none() -> None:
    cluster = Cluster()
    cluster.job["spec"]["training"]["novelty"] = True
    cluster.step(0)
    assert cluster.get_condition("Stalled")[:2] == ("True", "InvalidSpec")
    assert "upgrade the operator" in cluster.get_condition("Ready")[2]
    assert "failure" not in cluster.status
    live = to_prepare()
    live.job["spec"]["training"]["novelty"] = True
    live.step(1)
    assert live.get_condition("Stalled")[0] == "False"
    live.end(0, 20, objects.build_prepared_message())
    assert _kinds(live.step(20)) == [], "no stage begins without the field"
    assert live.get_condition("Stalled")[:2] == ("True", "InvalidSpec")
    assert live.status["preparedSHA256"] == objects.PREPARED_SHA256


def test_a_value_of_a_newer_crd_stalls_a_run_and_ends_none() -> None:
    cluster = Cluster()
    cluster.job["spec"]["task"] = "TimeSeriesForecasting"
    assert cluster.step(0).actions == ()
    assert cluster.get_condition("Stalled")[:2] == ("True", "InvalidSpec")
    assert "upgrade the operator" in cluster.get_condition("Ready")[2]
    assert "failure" not in cluster.status


def test_a_status_of_a_newer_operator_is_read_without_its_news() -> None:
    cluster = to_prepare()
    cluster.job["status"]["novelty"] = {"x": 1}
    assert cluster.step(1).actions == ()


NEXT_IMAGE = "registry.example.com/finetune-trainer:2"


def _read_image(plan: Any) -> tuple[str, str]:
    """Return the image of the pod a plan creates, and the one its RunConfig names."""
    [created] = [action.manifest for action in plan.actions if isinstance(action, CreateJob)]
    template = created["spec"]["template"]
    config = json.loads(template["metadata"]["annotations"][group.ANNOTATION_RUN_CONFIG])
    return template["spec"]["containers"][0]["image"], config["image"]


def _upgrade(cluster: Cluster, *allowed: str) -> None:
    cluster.settings = cluster.settings.model_copy(update={"trainer_image": NEXT_IMAGE, "allowed_images": allowed})


def test_a_run_keeps_the_image_of_its_first_attempt_when_the_default_changes() -> None:
    cluster = to_train()
    first = SETTINGS.trainer_image
    assert cluster.status["trainerImage"] == first
    cluster.end(75, 40)
    _upgrade(cluster, first)
    cluster.step(40)
    plan = cluster.step(100)
    assert _read_image(plan) == (first, first)
    assert cluster.status["trainerImage"] == first


def test_an_attempt_that_was_recorded_but_not_created_keeps_its_image_too() -> None:
    cluster = Cluster()
    cluster.step(0, acts=False)
    _upgrade(cluster)
    assert _read_image(cluster.step(1)) == (SETTINGS.trainer_image,) * 2


def test_an_image_of_the_job_s_own_is_recorded_like_the_default() -> None:
    own = "registry.example.com/own:3"
    cluster = Cluster(
        SETTINGS.model_copy(update={"allowed_images": ("registry.example.com/own:*",)}), spec__trainer={"image": own}
    )
    assert _read_image(cluster.step(0)) == (own, own)
    assert cluster.status["trainerImage"] == own


def test_a_recorded_image_that_is_no_longer_allowed_ends_the_run_and_says_what_to_do() -> None:
    cluster = to_train()
    cluster.end(75, 40)
    _upgrade(cluster)
    plan = cluster.step(40)
    assert _kinds(plan) == ["PatchJob", "PatchJob"], "nothing but the expiry of the old Jobs"
    failure = cluster.status["failure"]
    assert failure["reason"] == "ConfigError"
    assert failure["message"].startswith(f"status.trainerImage ({SETTINGS.trainer_image}) must")
    assert NEXT_IMAGE in failure["message"]
    assert "allow it until" in failure["message"]


def test_an_upgrade_leaves_the_attempt_that_runs_alone() -> None:
    cluster = to_train()
    objects.start_pod(cluster.add_pod(21), 22)
    _upgrade(cluster)
    assert _kinds(cluster.step(30)) == []
    assert "failure" not in cluster.status


def test_a_run_config_too_long_for_an_annotation_is_refused() -> None:
    env = [{"name": f"V{number}", "value": "x" * 4000} for number in range(40)]
    cluster = Cluster(spec__trainer={"env": env}, settings=SETTINGS.model_copy(update={"allowed_environment": ("V*",)}))
    cluster.step(0)
    assert cluster.status["failure"]["reason"] == "ConfigError"
    assert "131072 bytes" in cluster.status["failure"]["message"]


def test_creating_never_happens_twice_for_one_attempt() -> None:
    cluster = to_prepare()
    plans = [cluster.step(float(second)) for second in range(1, 30)]
    assert not any(isinstance(action, CreateJob) for plan in plans for action in plan.actions)


def _kstatus(job: Manifest) -> str:
    """Judge as cli-utils' kstatus does: https://github.com/kubernetes-sigs/cli-utils/tree/master/pkg/kstatus."""
    stored = job["status"]
    if stored.get("observedGeneration") != job["metadata"]["generation"]:
        return "InProgress"
    conditions = {item["type"]: item["status"] for item in stored.get("conditions", [])}
    if conditions.get("Reconciling") == "True":
        return "InProgress"
    if conditions.get("Stalled") == "True":
        return "Failed"
    return {"True": "Current", "False": "InProgress", "Unknown": "InProgress"}.get(
        conditions.get("Ready", ""), "Current"
    )


def test_kstatus_and_the_outcome_matrix_agree() -> None:
    fresh = Cluster()
    running, queued, suspended, waiting, succeeded, failed = (to_train() for _ in range(6))
    objects.start_pod(running.add_pod(21), 22)
    queued.children[-1]["spec"]["suspend"] = True
    suspended.job["spec"]["runPolicy"]["suspend"] = True
    suspended.step(22)
    objects.hold_pod(waiting.add_pod(21), "ErrImagePull", "no")
    succeeded.end(0, 23, objects.build_trained_message())
    failed.end(80, 23)
    rows = {}
    for name, cluster in {
        "fresh": fresh,
        "running": running,
        "queued": queued,
        "suspended": suspended,
        "waiting": waiting,
        "succeeded": succeeded,
        "failed": failed,
    }.items():
        if name != "fresh":
            cluster.step(24)
        conditions = {item["type"]: item["status"] for item in cluster.status.get("conditions", [])}
        shown = [conditions.get(key, "absent") for key in ("Ready", "Reconciling", "Stalled", "Succeeded", "Failed")]
        rows[name] = (*shown, _kstatus(cluster.job))
    assert rows == {
        "fresh": ("absent", "absent", "absent", "absent", "absent", "InProgress"),
        "running": ("False", "True", "False", "Unknown", "False", "InProgress"),
        "queued": ("False", "True", "False", "Unknown", "False", "InProgress"),
        "suspended": ("False", "False", "False", "Unknown", "False", "InProgress"),
        "waiting": ("False", "False", "True", "Unknown", "False", "Failed"),
        "succeeded": ("True", "False", "False", "True", "False", "Current"),
        "failed": ("False", "False", "True", "False", "True", "Failed"),
    }

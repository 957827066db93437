"""What `kubectl get -o wide` shows: the reason that helps, and the figure that chose the checkpoint by its name."""

from typing import Any

import cluster_objects as objects
import pytest
from cluster_objects import Cluster, build_message, build_trained_message, to_prepare, to_train

from finetune_api import crd


def test_the_columns_are_fields_of_the_status() -> None:
    [version] = crd.build_crd()["spec"]["versions"]
    paths = {item["name"]: item["jsonPath"] for item in version["additionalPrinterColumns"]}
    assert (paths["Reason"], paths["Metric"]) == (".status.reason", ".status.metric")
    fields = version["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]
    assert {"reason", "metric"} <= fields.keys()


def _fail() -> Cluster:
    cluster = to_prepare()
    cluster.step(1)
    cluster.end(65, 20, build_message("prepare", 1, 65, "DataError", message="bad"))
    cluster.step(20)
    return cluster


def _run() -> Cluster:
    cluster = to_train()
    objects.start_pod(cluster.add_pod(25), 25)
    cluster.step(30)
    return cluster


def _stall() -> Cluster:
    cluster = to_prepare()
    cluster.step(1)
    objects.hold_pod(cluster.add_pod(2), "ErrImagePull", "no such image")
    cluster.step(3)
    return cluster


def _succeed() -> Cluster:
    cluster = to_train()
    cluster.step(21)
    cluster.end(0, 60, build_trained_message())
    cluster.step(60)
    return cluster


@pytest.mark.parametrize(
    ("make", "want"),
    [(_fail, "DataError"), (_run, "Running"), (_stall, "ImagePullFailed"), (_succeed, "Completed")],
)
def test_the_reason_is_the_one_that_helps(make: Any, want: str) -> None:
    assert make().status["reason"] == want


def test_while_it_trains_the_metric_is_that_of_the_best_evaluation_so_far() -> None:
    cluster = to_train()
    objects.start_pod(cluster.add_pod(25), 25)
    cluster.step(30)
    seen = []
    for step, value, is_best in ((50, "0.81", True), (100, "0.79", False), (150, "0.84", True)):
        metrics = [{"name": "f1", "value": value}, {"name": "loss", "value": "0.5"}]
        evaluation = {"step": step, "metrics": metrics, "isBest": is_best}
        cluster.tell(cluster.pods[-1], 30 + step, stage="train", lastEvaluation=evaluation)
        seen.append(cluster.status["metric"])
    assert seen == ["f1=0.81", "f1=0.81", "f1=0.84"]


def _measure(*figures: tuple[str, str, str]) -> list[dict[str, str]]:
    return [{"name": name, "value": value, "split": split} for name, value, split in figures]


@pytest.mark.parametrize(
    ("best", "figures", "want"),
    [
        ("f1", [("accuracy", "0.9", "test"), ("f1", "0.8", "test")], "f1=0.8"),
        ("f1", [("f1", "0.7", "validation"), ("f1", "0.8", "test")], "f1=0.8"),
        ("f1", [("f1", "0.7", "validation")], "f1=0.7"),
        ("", [("accuracy", "0.9", "test")], "accuracy=0.9"),
        ("absent", [("accuracy", "0.9", "test")], "accuracy=0.9"),
        ("f1", [], None),
    ],
)
def test_the_metric_is_the_one_that_chose_the_checkpoint(
    best: str, figures: list[tuple[str, str, str]], want: str | None
) -> None:
    cluster = to_train()
    cluster.job["status"]["resolved"] = {"totalSteps": "250"} | ({"bestMetric": best} if best else {})
    cluster.step(21)
    text = build_message("train", 1, manifestSHA256=objects.MANIFEST_SHA256, metrics={"tuned": _measure(*figures)})
    cluster.end(0, 60, text)
    cluster.step(60)
    assert cluster.status.get("metric") == want

"""Texts that somebody else wrote are shown without control characters and credentials, wherever they turn up."""

import json
from collections.abc import Callable

import cluster_objects as objects
import pytest
from cluster_objects import Cluster, build_message, build_prepared_message, to_prepare, to_train

from finetune_operator.runtime.kind import Refusal

EVIL = "first\nsecond\r\x1b[31mred\x9b\u202e aws_secret_access_key=hunter2 Bearer abcdefghijklmnop"


def _scheduler(cluster: Cluster) -> None:
    objects.set_unschedulable(cluster.add_pod(2), 2, EVIL)


def _kubelet(cluster: Cluster) -> None:
    objects.hold_pod(cluster.add_pod(2), "ErrImagePull", EVIL)


def _start_failure(cluster: Cluster) -> None:
    pod = cluster.add_pod(2)
    objects.hold_pod(pod, "ContainerCreating")
    event = {"reason": "FailedMount", "message": EVIL, "lastTimestamp": objects.time_text(3)}
    cluster.events = [event | {"involvedObject": {"uid": pod["metadata"]["uid"]}}]


def _job_controller(cluster: Cluster) -> None:
    event = {"reason": "FailedCreate", "message": EVIL, "lastTimestamp": objects.time_text(3)}
    cluster.events = [event | {"involvedObject": {"uid": cluster.children[0]["metadata"]["uid"]}}]


def _queue(cluster: Cluster) -> None:
    cluster.children[0]["spec"]["suspend"] = True
    condition = {"type": "Suspended", "status": "True", "message": EVIL, "lastTransitionTime": objects.time_text(2)}
    cluster.children[0]["status"]["conditions"].append(condition)


def _failed_job(cluster: Cluster) -> None:
    objects.end_child(cluster.children[0], "Failed", 3, "BackoffLimitExceeded", EVIL)


def _trainer(cluster: Cluster) -> None:
    cluster.end(65, 3, build_message("prepare", 1, 65, "DataError", message=EVIL, remedy=EVIL))


def _warnings(cluster: Cluster) -> None:
    message = json.loads(build_prepared_message()) | {"warnings": [EVIL], "resolved": {"device": EVIL}}
    cluster.end(0, 3, json.dumps(message))


def _raw_output(cluster: Cluster) -> None:
    cluster.end(1, 3, EVIL)


def _disruption(cluster: Cluster) -> None:
    cluster.end(143, 3, disruption=EVIL)


SOURCES = (
    _scheduler,
    _kubelet,
    _start_failure,
    _job_controller,
    _queue,
    _failed_job,
    _trainer,
    _warnings,
    _raw_output,
    _disruption,
)


@pytest.mark.parametrize("speak", SOURCES)
def test_nothing_unseen_and_no_secret_gets_into_status_or_events(speak: Callable[[Cluster], None]) -> None:
    cluster = to_prepare()
    cluster.step(1)
    speak(cluster)
    plan = cluster.step(90)
    _check(plan.status, [event.message for event in plan.events])
    assert "second" in str(plan.status), "it is shown all the same"


def test_a_refusal_of_the_api_server_is_no_exception() -> None:
    cluster = Cluster()
    cluster.step(0, acts=False)
    cluster.refusals = {cluster.status["attempts"][0]["job"]: Refusal(403, EVIL)}
    plan = cluster.step(1)
    _check(plan.status, [event.message for event in plan.events])


def test_a_pod_that_was_replaced_is_none_either() -> None:
    cluster = to_train()
    objects.start_pod(cluster.add_pod(25), 25)
    cluster.step(30)
    objects.end_pod(cluster.pods[-1], 143, 40, disruption=EVIL)
    plan = cluster.step(41)
    assert objects.list_reasons(plan) == ["PodDisrupted"]
    _check(plan.status, [event.message for event in plan.events])


NAME = "first\n\x1b[31msecond\u202e"
EVIL_METRICS = [{"name": NAME, "value": NAME, "split": "\x1b[31m"}]


def test_nor_are_the_figures_of_a_pod_that_runs() -> None:
    cluster = to_train()
    objects.start_pod(cluster.add_pod(25), 25)
    cluster.step(30)
    saved = objects.make_checkpoint(10, metrics=EVIL_METRICS)
    evaluation = {"step": 10, "metrics": EVIL_METRICS, "isBest": True}
    plan = cluster.tell(
        cluster.pods[-1], 40, checkpoints=[saved], lastEvaluation=evaluation, checkpointFailure=EVIL, stage="train"
    )
    assert "second" in str(plan.status["checkpoints"])
    assert "second" in plan.status["metric"]
    _check(plan.status, [event.message for event in plan.events])


def test_nor_those_of_one_that_has_succeeded() -> None:
    cluster = to_train()
    cluster.step(21)
    text = build_message(
        "train", 1, manifestSHA256=objects.MANIFEST_SHA256, metrics={"tuned": EVIL_METRICS, "base": EVIL_METRICS}
    )
    cluster.end(0, 60, text)
    plan = cluster.step(60)
    assert "second" in str(plan.status["metrics"])
    _check(plan.status, [event.message for event in plan.events])


def _check(*shown: object) -> None:
    for text in _list_texts(list(shown)):
        assert text.isprintable(), repr(text)
        assert "hunter2" not in text
        assert "abcdefghijklmnop" not in text


def _list_texts(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for item in value.values() for text in _list_texts(item)]
    return [text for item in value for text in _list_texts(item)] if isinstance(value, list | tuple) else []

"""How attempts end: exit code, message and pod in, cause, count and phase out."""

import json
from dataclasses import dataclass, field
from typing import Any

import cluster_objects as objects
import pytest
from cluster_objects import to_prepare, to_train

from finetune_api.kinds.finetunejob.status import FineTuneJobStatus


def _kinds(plan: Any) -> list[str]:
    return [type(action).__name__ for action in plan.actions]


def _events(plan: Any) -> list[str]:
    return [event.reason for event in plan.events]


@dataclass(frozen=True)
class Ended:
    """How an attempt ended and what must follow."""

    sentence: str
    code: int
    want_cause: str
    want_phase: str
    text: str = ""
    how: dict[str, str] = field(default_factory=dict)
    want_counted: bool = False
    want_reason: str = ""
    want_message: str = ""
    limit: int = 3


def _message(code: int, reason: str, text: str = "bad rows", stage: str = "prepare", attempt: int = 1) -> str:
    return objects.build_message(stage, attempt, code, reason, message=text, remedy="fix it")


ENDED = [
    Ended("usage is final", 64, "ConfigError", "Failed", _message(64, "ConfigError"), want_reason="ConfigError"),
    Ended("bad data is final", 65, "DataError", "Failed", _message(65, "DataError"), want_reason="DataError"),
    Ended("an unfit model is final", 65, "ModelError", "Failed", _message(65, "ModelError"), want_reason="ModelError"),
    Ended("a missing input is final", 66, "ReferenceNotFound", "Failed", want_reason="ReferenceNotFound"),
    Ended("denied access is final", 77, "AccessDenied", "Failed", want_reason="AccessDenied"),
    Ended("a configuration error is final", 78, "ConfigError", "Failed", want_reason="ConfigError"),
    Ended("an invalid spec found by the trainer is final", 78, "InvalidSpec", "Failed", _message(78, "InvalidSpec")),
    Ended("CUDA out of memory is final", 79, "CUDAOutOfMemory", "Failed", want_reason="CUDAOutOfMemory"),
    Ended("a diverged loss is final", 80, "Diverged", "Failed", want_reason="Diverged"),
    Ended("a final code stays final on a drained node", 65, "DataError", "Failed", how={"disruption": "drained"}),
    Ended(
        "a reason the code doesn't allow is not believed", 66, "ReferenceNotFound", "Failed", _message(66, "Diverged")
    ),
    Ended(
        "a message of another attempt is not believed", 65, "DataError", "Failed", _message(65, "ModelError", attempt=2)
    ),
    Ended(
        "a message of the other stage is not believed",
        65,
        "DataError",
        "Failed",
        _message(65, "ModelError", stage="train"),
    ),
    Ended("storage trouble is retried", 69, "StorageUnavailable", "Pending", want_counted=True),
    Ended("a temporary fault is retried", 75, "Internal", "Pending", want_counted=True),
    Ended("a GPU fault is retried", 85, "Internal", "Pending", want_counted=True),
    Ended("an unknown error is retried", 1, "Internal", "Pending", want_counted=True),
    Ended("an unknown code is retried", 255, "Internal", "Pending", want_counted=True),
    Ended("abort is retried", 134, "Internal", "Pending", want_counted=True),
    Ended("a segmentation fault is retried", 139, "Internal", "Pending", want_counted=True),
    Ended("SIGKILL without evidence is no memory error", 137, "Internal", "Pending", want_counted=True),
    Ended("OOMKilled is a memory error", 137, "OutOfMemory", "Pending", how={"reason": "OOMKilled"}, want_counted=True),
    Ended("OOMKilled beats the code", 65, "OutOfMemory", "Pending", how={"reason": "OOMKilled"}, want_counted=True),
    Ended(
        "the launcher's word about memory is believed",
        137,
        "OutOfMemory",
        "Pending",
        _message(137, "OutOfMemory"),
        want_counted=True,
    ),
    Ended("a stop by signal counts nothing", 143, "PodDisrupted", "Pending"),
    Ended("a crash on a drained node counts nothing", 137, "PodDisrupted", "Pending", how={"disruption": "drained"}),
    Ended("exit 0 without a message proves nothing", 0, "ArtifactMissing", "Failed", want_reason="ArtifactMissing"),
    Ended(
        "exit 0 without the digest proves nothing", 0, "ArtifactMissing", "Failed", objects.build_message("prepare", 1)
    ),
    Ended(
        "exit 0 with another attempt's digest proves nothing",
        0,
        "ArtifactMissing",
        "Failed",
        objects.build_prepared_message(2),
    ),
    Ended(
        "no retries: out of memory",
        137,
        "OutOfMemory",
        "Failed",
        how={"reason": "OOMKilled"},
        want_counted=True,
        limit=0,
    ),
    Ended("no retries: storage", 69, "StorageUnavailable", "Failed", want_counted=True, limit=0),
    Ended("no retries: a crash", 1, "Internal", "Failed", want_counted=True, limit=0),
    Ended("no retries: a drained node still counts nothing", 143, "PodDisrupted", "Pending", limit=0),
    Ended(
        "plain text is shown as text",
        1,
        "Internal",
        "Failed",
        "Traceback: boom",
        want_message="boom",
        want_counted=True,
        limit=0,
    ),
    Ended(
        "of a log's end the last line's message is shown",
        137,
        "Internal",
        "Failed",
        '-4c74-a137", "rank": 0}\n{"level": "info", "message": "step=79 of=800", "rank": 0}\n',
        want_message="ended with exit code 137 (SIGKILL): its log ends with: step=79 of=800",
        want_counted=True,
        limit=0,
    ),
    Ended(
        "secrets in it are not",
        1,
        "Internal",
        "Failed",
        "aws_secret_access_key=abcd1234",
        want_message="***",
        want_counted=True,
        limit=0,
    ),
    Ended("long text is cut", 1, "Internal", "Failed", "x" * 4000, want_message="…", want_counted=True, limit=0),
]


@pytest.mark.parametrize("case", ENDED, ids=lambda case: case.sentence)
def test_an_attempt_that_ends_with(case: Ended) -> None:
    cluster = to_prepare(spec__runPolicy={"backoffLimit": case.limit})
    cluster.step(1)
    cluster.end(case.code, 20, case.text, **case.how)
    plan = cluster.step(20)
    stored = cluster.status
    [attempt] = stored["attempts"]
    assert (attempt["cause"], attempt["counted"], stored["phase"]) == (
        case.want_cause,
        case.want_counted,
        case.want_phase,
    )
    assert (attempt["activeSeconds"], attempt["endTime"]) == (10, objects.time_text(20))
    assert stored.get("failedAttempts", 0) == int(case.want_counted)
    if case.want_phase == "Failed":
        failure = stored["failure"]
        assert failure["reason"] == case.want_cause
        assert failure["exitCode"] == case.code
        assert failure["remedy"], "every failure says what to do"
        assert case.want_message in failure["message"]
        assert len(failure["message"]) <= 1024
        assert "abcd1234" not in str(stored)
        assert cluster.get_condition("Stalled")[:2] == ("True", case.want_cause)
        assert _kinds(plan) == ["PatchJob"], "the ended Job gets its TTL, nothing else"
    else:
        assert "failure" not in stored
        assert cluster.get_condition("Ready")[:2] == ("False", "Retrying")
        assert plan.requeue_after is not None
        assert 5 <= plan.requeue_after <= 11
        assert _kinds(plan) == []


def test_a_pod_that_its_node_refuses_counts_nothing() -> None:
    cluster = to_prepare()
    cluster.step(1)
    text = "Pod was rejected: Node didn't have enough resource: cpu, requested: 600, used: 1750, capacity: 2000"
    cluster.add_pod(5)["status"] = {"phase": "Failed", "reason": "OutOfcpu", "message": text}
    objects.end_child(cluster.children[-1], "Failed", 20, "BackoffLimitExceeded")
    plan = cluster.step(20)
    [attempt] = cluster.status["attempts"]
    assert (attempt["cause"], attempt["counted"]) == ("PodDisrupted", False)
    assert attempt["message"].endswith(f" failed before its container ran (OutOfcpu): {text}")
    assert cluster.status["phase"] == "Pending"
    assert _events(plan) == ["AttemptFailed"]


def test_the_message_and_remedy_of_the_trainer_are_shown_as_they_are() -> None:
    cluster = to_prepare()
    cluster.step(1)
    cluster.end(65, 20, _message(65, "DataError", "train.jsonl line 17: label is missing"))
    cluster.step(20)
    assert cluster.status["failure"] == {
        "reason": "DataError",
        "message": "train.jsonl line 17: label is missing",
        "remedy": "fix it",
        "retryable": False,
        "exitCode": 65,
    }


@dataclass(frozen=True)
class Spent:
    sentence: str
    codes: tuple[tuple[int, str], ...]
    limit: int
    want_reason: str
    want_retryable: bool


@pytest.mark.parametrize(
    "case",
    [
        Spent("always out of memory", ((137, "OOMKilled"),) * 3, 2, "OutOfMemory", False),
        Spent("always the store", ((69, ""),) * 2, 1, "StorageUnavailable", True),
        Spent("different causes", ((69, ""), (137, "OOMKilled")), 1, "BackoffLimitExceeded", False),
        Spent("twenty retries, of which the status lists ten", ((69, ""),) * 21, 20, "StorageUnavailable", True),
    ],
    ids=lambda case: case.sentence,
)
def test_spent_retries_name_the_cause(case: Spent) -> None:
    cluster = to_prepare(spec__runPolicy={"backoffLimit": case.limit})
    moment = 0.0
    for code, reason in case.codes:
        cluster.step(moment + 1)
        cluster.end(code, moment + 20, "", reason=reason)
        cluster.step(moment + 20)
        moment += 1000
        cluster.step(moment)
    failure = cluster.status["failure"]
    assert (failure["reason"], failure["retryable"]) == (case.want_reason, case.want_retryable)
    assert failure["message"].startswith(f"{len(case.codes)} attempts failed, the last one: ")
    assert (cluster.status["failedAttempts"], cluster.made) == (len(case.codes), len(case.codes))
    assert len(cluster.status["attempts"]) == min(10, len(case.codes))
    assert cluster.status["activeSeconds"] == 10 * len(case.codes)


def test_failures_of_both_stages_count_together() -> None:
    cluster = to_prepare(spec__runPolicy={"backoffLimit": 1})
    cluster.step(1)
    cluster.end(69, 20)
    cluster.step(20)
    cluster.step(100)
    cluster.step(101)
    cluster.end(0, 120, objects.build_prepared_message(2))
    cluster.step(120)
    cluster.step(121)
    cluster.end(69, 140)
    cluster.step(140)
    assert cluster.status["failure"]["reason"] == "StorageUnavailable"


@pytest.mark.parametrize("is_suspended", [False, True])
@pytest.mark.parametrize("fate", ["deadline", "deleted", "replaced"])
def test_a_proven_success_counts_whatever_became_of_the_job(fate: str, is_suspended: bool) -> None:
    cluster = to_train()
    cluster.step(21)
    objects.end_pod(cluster.add_pod(30), 0, 60, objects.build_trained_message())
    if is_suspended:
        cluster.job["spec"]["runPolicy"]["suspend"] = True
        cluster.step(61, acts=False)
    child = cluster.children[-1]
    if fate == "deadline":
        objects.end_child(child, "Failed", 61, "DeadlineExceeded")
    elif fate == "deleted":
        cluster.children.remove(child)
    else:
        cluster.children[-1] = objects.make_child(child, "another", 61)
    cluster.step(62)
    stored = cluster.status
    assert (stored["phase"], stored["artifacts"]["manifestSHA256"]) == ("Succeeded", objects.MANIFEST_SHA256)
    assert (stored["attempts"][-1]["cause"], stored["attempts"][-1]["activeSeconds"]) == ("Completed", 10)


def test_warnings_of_the_trainer_are_scrubbed_and_cut() -> None:
    cluster = to_prepare()
    cluster.step(1)
    text = json.loads(objects.build_prepared_message()) | {"warnings": ["password=hunter2", "x" * 2000, "x" * 2000]}
    cluster.end(0, 20, json.dumps(text))
    cluster.step(20)
    assert cluster.status["warnings"] == ["password=***", "x" * 1023 + "…"]


UNFIT: list[tuple[str, dict[str, Any]]] = [
    ("a digest that is none", {"runDigest": "sha256:xyz"}),
    ("more resolved values than fit", {"resolved": {f"key{number}": "1" for number in range(64)}}),
]


@pytest.mark.parametrize(("sentence", "fields"), UNFIT, ids=[case[0] for case in UNFIT])
def test_a_message_that_no_status_may_hold_is_no_message(sentence: str, fields: dict[str, Any]) -> None:
    cluster = to_prepare()
    cluster.job["status"]["resolved"] = {"seed": "1"}
    cluster.step(1)
    cluster.end(0, 20, json.dumps(json.loads(objects.build_prepared_message()) | fields))
    cluster.step(20)
    assert cluster.status["failure"]["reason"] == "ArtifactMissing"
    assert "preparedSHA256" not in cluster.status
    FineTuneJobStatus.model_validate(cluster.status)

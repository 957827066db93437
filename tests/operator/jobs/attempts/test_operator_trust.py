"""What a pod says is believed within bounds: addresses of this run, pods of this Job, for minutes, and not for ever."""

import pytest
from cluster_objects import (
    MANIFEST_SHA256,
    UID,
    Cluster,
    build_message,
    build_prepared_message,
    build_trained_message,
    end_child,
    end_pod,
    make_pod,
    time_text,
    to_prepare,
    to_train,
)
from manifests import Manifest

INSIDE = f"s3://runs/movies/runs/{UID}/attempts/1/model/"


@pytest.mark.parametrize(
    "uri",
    [
        "s3://evil/movies/runs/x/attempts/1/model/",
        "s3://runs/movies/runs/another-uid/attempts/1/model/",
        f"s3://runs/other/runs/{UID}/attempts/1/model/",
        f"s3://runs/movies/runs/{UID}/../another/model/",
        f"s3://runs/movies/runs/{UID}x/attempts/1/model/",
        "s3://runs/movies/",
        "https://evil.example.com/model/",
        "s3://runs/movies/\x1b[31m",
    ],
)
def test_artifacts_that_lie_outside_of_the_run_are_no_success(uri: str) -> None:
    cluster = to_train()
    cluster.step(21)
    message = build_message("train", 1, manifestSHA256=MANIFEST_SHA256, artifactsURI=uri, step=1)
    cluster.end(0, 60, message)
    cluster.step(60)
    failure = cluster.status["failure"]
    assert (cluster.status["phase"], failure["reason"]) == ("Failed", "ArtifactMissing")
    assert "artifactsURI" in failure["message"]
    assert f"s3://runs/movies/runs/{UID}/" in failure["message"]
    assert "\x1b" not in str(cluster.status)
    assert "artifacts" not in cluster.status


def test_a_report_that_lies_outside_of_the_run_ends_it_too() -> None:
    cluster = to_prepare()
    cluster.step(1)
    cluster.end(0, 20, build_prepared_message().replace('"trainRows": 2000', '"reportURI": "s3://evil/report.html"'))
    cluster.step(20)
    assert cluster.status["failure"]["reason"] == "ArtifactMissing"
    assert "reportURI" in cluster.status["failure"]["message"]


def test_what_a_message_resolved_is_shown_without_control_characters_and_credentials() -> None:
    cluster = to_prepare()
    cluster.step(1)
    text = build_prepared_message().replace('"250"', '"250\\n\\u001b[2J aws_secret_access_key=hunter2"')
    cluster.end(0, 20, text)
    cluster.step(20)
    shown = cluster.status["resolved"]["totalSteps"]
    assert "hunter2" not in shown
    assert shown.isprintable()


# Pods that the Job didn't make.


def _rename(pod: Manifest) -> None:
    pod["metadata"]["name"] = "helpful-pod"


def _relabel(pod: Manifest) -> None:
    pod["metadata"]["labels"]["finetune.dev/attempt"] = "7"


def _drop_run_config(pod: Manifest) -> None:
    pod["metadata"]["annotations"] = {}


@pytest.mark.parametrize("forge", [_rename, _relabel, _drop_run_config])
def test_a_pod_that_the_job_cannot_have_made_is_not_believed(forge: object) -> None:
    cluster = to_train()
    cluster.step(21)
    child = cluster.children[-1]
    pod = make_pod(child, f"{child['metadata']['name']}-zzzzz", 30)
    forge(pod)  # type: ignore[operator]  # one of the three above
    end_pod(pod, 0, 40, build_trained_message())
    cluster.pods.append(pod)
    cluster.step(40)
    assert "artifacts" not in cluster.status
    end_child(child, "Complete", 41)
    cluster.step(41)
    assert cluster.status["attempts"][-1]["cause"] == "MessageLost", "the next attempt looks at what was committed"


def test_what_admission_adds_to_a_pod_makes_it_no_stranger() -> None:
    cluster = to_train()
    cluster.step(21)
    cluster.end(0, 60, build_trained_message())
    cluster.pods[-1]["metadata"]["labels"]["injected"] = "yes"
    cluster.pods[-1]["metadata"]["annotations"]["injected"] = "yes"
    cluster.step(60)
    assert cluster.status["phase"] == "Succeeded"


# A Job that is never complete.


def _succeed_without_completion() -> Cluster:
    cluster = to_train(spec__runPolicy={"backoffLimit": 1})
    cluster.step(21)
    end_pod(cluster.add_pod(25), 0, 60, build_trained_message())
    return cluster


def test_a_succeeded_pod_is_waited_for_for_minutes_and_its_job_is_then_replaced() -> None:
    cluster = _succeed_without_completion()
    assert cluster.step(61).requeue_after == 299
    assert "has its result" in cluster.get_condition("Ready")[2]
    plan = cluster.step(360)
    attempt = cluster.status["attempts"][-1]
    assert (attempt["cause"], attempt["counted"]) == ("Internal", True)
    assert "is not complete 5 minutes after its pod succeeded" in attempt["message"]
    assert [type(action).__name__ for action in plan.actions] == ["DeleteJob"]
    cluster.step(400)
    assert [item["number"] for item in cluster.status["attempts"] if item["stage"] == "train"] == [1, 2]


def test_a_succeeded_pod_holds_off_suspension_for_minutes_only() -> None:
    cluster = _succeed_without_completion()
    cluster.job["spec"]["runPolicy"]["suspend"] = True
    assert cluster.step(61).actions == ()
    cluster.step(361)
    cluster.step(362)
    assert cluster.status["phase"] == "Suspended"


# Messages that are lost.


def test_a_message_lost_once_counts_nothing_and_one_lost_again_does() -> None:
    cluster = to_train(spec__runPolicy={"backoffLimit": 1})
    now, causes = 21.0, []
    for _ in range(8):
        if cluster.status["phase"] == "Failed":
            break
        cluster.step(now)
        end_child(cluster.children[-1], "Complete", now + 10)
        cluster.step(now + 10)
        causes.append((cluster.status["attempts"][-1]["cause"], cluster.status["attempts"][-1]["counted"]))
        cluster.step(now + 10 + 400)
        now += 420
    assert causes == [("MessageLost", False), ("MessageLost", True), ("MessageLost", True)]
    assert cluster.status["failure"]["reason"] == "BackoffLimitExceeded"
    assert "pod and message are gone" in cluster.status["failure"]["message"]
    assert cluster.status["completionTime"] == time_text(now - 420 + 10)

"""What running pods tell is shown and decides nothing: progress, checkpoints, where a pod went on, what was lost."""

import json
from typing import Any

import cluster_objects as objects
import pytest
from cluster_objects import Cluster, list_reasons, make_checkpoint, to_train
from manifests import Manifest

from finetune_api import artifacts
from finetune_api.kinds.finetunejob.status import FineTuneJobStatus
from finetune_operator.jobs import reports
from finetune_operator.jobs.kind import FineTuneJobs
from finetune_operator.runtime.kind import Answer
from finetune_operator.runtime.metrics import Metrics
from finetune_operator.runtime.plan import Endpoint, Plan

REPORT: Manifest = {
    "stage": "train",
    "phase": "train",
    "step": 120,
    "totalSteps": 250,
    "percent": 48,
    "estimatedRemainingSeconds": 90,
    "tokensPerSecond": 5120,
    "trainLoss": "0.41",
}
ACCURACY = {"name": "accuracy", "value": "0.91", "split": "validation"}


def _to_running(**edits: Any) -> Cluster:
    cluster = to_train(**edits)
    objects.start_pod(cluster.add_pod(25), 25)
    cluster.step(30)
    return cluster


def _write(report: Manifest) -> bytes:
    return json.dumps(report).encode()


def _last_pod(cluster: Cluster) -> Manifest:
    return cluster.pods[-1]


def _find_endpoint(plan: Plan) -> Endpoint:
    assert plan.endpoint is not None
    return plan.endpoint


def test_a_running_pod_is_asked_under_its_own_address_and_by_its_uid() -> None:
    cluster = _to_running()
    endpoint = _find_endpoint(cluster.plan(40))
    uid = _last_pod(cluster)["metadata"]["uid"]
    assert (endpoint.pod_uid, endpoint.url, endpoint.wish) == (uid, "http://10.0.0.7:9400/progress", "")
    assert endpoint.headers == {"Finetune-Pod-UID": uid}
    _last_pod(cluster)["status"]["podIP"] = "fd00::7"
    assert _find_endpoint(cluster.plan(40)).url == "http://[fd00::7]:9400/progress"


def test_nobody_is_asked_where_no_pod_runs() -> None:
    cluster = to_train()
    assert cluster.step(21).endpoint is None
    cluster.add_pod(22)
    assert cluster.step(23).endpoint is None
    objects.start_pod(_last_pod(cluster), 25)
    assert cluster.step(26).endpoint is not None
    objects.end_pod(_last_pod(cluster), 0, 100, objects.build_trained_message())
    objects.end_child(cluster.children[-1], "Complete", 101)
    assert cluster.step(102).endpoint is None


def test_what_the_pod_tells_stands_in_the_status() -> None:
    cluster = _to_running()
    cluster.tell(_last_pod(cluster), 60, **REPORT)
    assert cluster.status["progress"] == {
        "stage": "train",
        "phase": "train",
        "pod": _last_pod(cluster)["metadata"]["name"],
        "step": 120,
        "totalSteps": 250,
        "percent": 48,
        "estimatedRemainingSeconds": 90,
        "estimatedCompletionTime": objects.time_text(150),
        "tokensPerSecond": 5120,
        "metrics": [{"name": "train_loss", "value": "0.41", "split": "train"}],
        "updateTime": objects.time_text(60),
    }


@pytest.mark.parametrize(
    ("change", "is_written"),
    [
        ({"step": 121, "trainLoss": "0.40", "estimatedRemainingSeconds": 10, "tokensPerSecond": 1}, False),
        ({"step": 131, "percent": 52}, False),
        ({"step": 133, "percent": 53}, True),
        ({"phase": "evaluate"}, True),
        ({"lastEvaluation": {"step": 120, "metrics": [ACCURACY], "isBest": True}}, True),
        ({"resumedFromStep": 0}, True),
        ({"checkpoints": [make_checkpoint(100)]}, True),
        ({"checkpoints": []}, False),
        ({"checkpointFailure": "no answer"}, True),
    ],
    ids=["another step", "4 %", "5 %", "a phase", "an evaluation", "a begin", "a checkpoint", "none", "a failure"],
)
def test_the_status_is_written_for_news_only(change: Manifest, is_written: bool) -> None:
    cluster = _to_running()
    cluster.tell(_last_pod(cluster), 60, **REPORT)
    endpoint = _find_endpoint(cluster.plan(60))
    cluster.answer = Answer(endpoint.pod_uid, _write(REPORT | change))
    kind = FineTuneJobs(objects.SETTINGS, Metrics())
    assert kind.is_news(endpoint.known, cluster.answer.body) == is_written
    assert bool(cluster.plan(75).status_patch) == is_written


@pytest.mark.parametrize(
    "report",
    [
        {"checkpoints": [make_checkpoint(100, uid="11111111-0000-4000-8000-000000000001")]},
        {"checkpoints": [make_checkpoint(100, uri="s3://elsewhere/step-000100/")]},
        {"checkpoints": [make_checkpoint(100, uri="s3://runs/movies/runs/../../other/")]},
        {"percent": 101},
        {"step": -1},
        {"trainLoss": "<script>"},
        {"phase": "\u202egnol"},
        {"lastEvaluation": {"step": 10**20}},
    ],
    ids=["another run's", "elsewhere", "a way out", "percent", "step", "loss", "phase", "a number beyond all"],
)
def test_an_answer_beyond_its_bounds_changes_nothing(report: Manifest) -> None:
    cluster = _to_running()
    before = cluster.status
    known = _find_endpoint(cluster.plan(60)).known
    cluster.answer = Answer(_last_pod(cluster)["metadata"]["uid"], _write(REPORT | report))
    assert not FineTuneJobs(objects.SETTINGS, Metrics()).is_news(known, cluster.answer.body)
    assert cluster.step(60).status_patch == {}
    assert cluster.status == before


@pytest.mark.parametrize("body", [b"", b"no JSON", b"[" * 16_000, b"\xff\xfe", b"null", b'{"step": NaN}'])
def test_an_answer_that_is_no_json_changes_nothing(body: bytes) -> None:
    cluster = _to_running()
    cluster.answer = Answer(_last_pod(cluster)["metadata"]["uid"], body)
    assert cluster.step(60).status_patch == {}


def test_the_answer_of_a_pod_that_does_not_run_any_more_changes_nothing() -> None:
    cluster = _to_running()
    cluster.answer = Answer("uid-of-another", _write(REPORT))
    assert cluster.step(60).status_patch == {}


def test_hundred_percent_is_success_alone() -> None:
    cluster = _to_running()
    cluster.tell(_last_pod(cluster), 60, **REPORT | {"step": 250, "percent": 100})
    assert cluster.status["progress"]["percent"] == 99
    objects.end_pod(_last_pod(cluster), 0, 100, objects.build_trained_message())
    objects.end_child(cluster.children[-1], "Complete", 101)
    cluster.step(102)
    progress = cluster.status["progress"]
    assert (progress["percent"], progress["step"]) == (100, 250)
    assert not {"phase", "estimatedRemainingSeconds", "estimatedCompletionTime", "tokensPerSecond"} & set(progress)


def test_an_evaluation_is_told_by_one_event() -> None:
    cluster = _to_running()
    report = REPORT | {"lastEvaluation": {"step": 100, "metrics": [ACCURACY], "isBest": True}}
    plan = cluster.tell(_last_pod(cluster), 60, **report)
    [event] = plan.events
    assert (event.reason, event.message) == (
        "Evaluated",
        "step 100: accuracy=0.91 on the validation rows, the best so far",
    )
    assert cluster.tell(_last_pod(cluster), 80, **report | {"percent": 60}).events == ()
    worse = {"step": 150, "metrics": [ACCURACY | {"value": "0.90"}], "isBest": False}
    [event] = cluster.tell(_last_pod(cluster), 90, **report | {"lastEvaluation": worse}).events
    assert event.message == "step 150: accuracy=0.90 on the validation rows, an earlier one was at least as good"


# Checkpoints.


def test_the_newest_checkpoint_comes_first_and_its_condition_says_which_it_is() -> None:
    cluster = _to_running()
    assert cluster.get_condition("CheckpointSaved") == ("Unknown", "Running", "")
    plan = cluster.tell(_last_pod(cluster), 60, checkpoints=[make_checkpoint(50), make_checkpoint(100, seconds=55)])
    assert [item["step"] for item in cluster.status["checkpoints"]] == [100, 50]
    text = f"step 100 of attempt 1, saved at {objects.time_text(55)}"
    assert cluster.get_condition("CheckpointSaved") == ("True", "CheckpointSaved", text)
    assert plan.events == ()


def test_a_checkpoint_that_could_not_be_saved_is_told_until_a_later_one_is() -> None:
    cluster = _to_running()
    pod = _last_pod(cluster)
    cluster.tell(pod, 60, checkpoints=[make_checkpoint(50)])
    plan = cluster.tell(pod, 80, checkpoints=[make_checkpoint(50)], checkpointFailure="403 aws_secret_access_key=abc")
    text = f"403 aws_secret_access_key=***; the newest is that of step 50 of attempt 1, saved at {objects.time_text(0)}"
    assert cluster.get_condition("CheckpointSaved") == ("False", "CheckpointFailed", text)
    assert [(event.reason, event.is_warning) for event in plan.events] == [("CheckpointFailed", True)]
    again = cluster.tell(pod, 90, checkpoints=[make_checkpoint(50)], checkpointFailure="503 slow down")
    assert again.events == ()
    cluster.tell(pod, 100, checkpoints=[make_checkpoint(90), make_checkpoint(50)])
    assert cluster.get_condition("CheckpointSaved")[:2] == ("True", "CheckpointSaved")


@pytest.mark.parametrize(
    ("is_kept", "told", "want_steps"),
    [(False, [], []), (False, None, []), (True, None, [100]), (True, [make_checkpoint(100)], [100])],
    ids=["deleted", "cut from the message", "kept, cut from the message", "kept"],
)
def test_after_success_the_list_says_what_is_left(
    is_kept: bool, told: list[Manifest] | None, want_steps: list[int]
) -> None:
    cluster = _to_running(spec__runPolicy__checkpoint__keepAfterSuccess=is_kept)
    cluster.tell(_last_pod(cluster), 60, checkpoints=[make_checkpoint(100)])
    fields = {} if told is None else {"checkpoints": told}
    objects.end_pod(_last_pod(cluster), 0, 100, objects.build_trained_message(**fields))
    objects.end_child(cluster.children[-1], "Complete", 101)
    cluster.step(102)
    assert cluster.status["phase"] == "Succeeded"
    assert [item["step"] for item in cluster.status.get("checkpoints", [])] == want_steps
    value, reason, text = cluster.get_condition("CheckpointSaved")
    assert (value, reason) == ("True", "CheckpointSaved"), "the milestone stays reached"
    assert text.endswith("; deleted since, because the model is published") == (not want_steps)
    assert cluster.step(103).status["conditions"] == cluster.status["conditions"]


def test_a_wish_for_a_checkpoint_is_passed_on_once() -> None:
    cluster = _to_running()
    cluster.job["metadata"]["annotations"] = {"finetune.dev/checkpoint-now": "2026-03-01T12:01:00Z"}
    endpoint = _find_endpoint(cluster.step(60))
    assert (endpoint.wish, endpoint.wish_url) == ("2026-03-01T12:01:00Z", "http://10.0.0.7:9400/checkpoint")
    cluster.answer = Answer(endpoint.pod_uid, b"", endpoint.wish)
    assert _find_endpoint(cluster.step(70)).wish == ""
    assert cluster.status["checkpointRequest"] == "2026-03-01T12:01:00Z"
    cluster.answer = None
    cluster.job["metadata"]["annotations"] = {"finetune.dev/checkpoint-now": "a" * 1000}
    assert _find_endpoint(cluster.step(80)).wish == "a" * 256


def test_a_prepare_pod_is_asked_for_its_phase_and_told_no_wish() -> None:
    cluster = objects.to_prepare()
    cluster.job["metadata"]["annotations"] = {"finetune.dev/checkpoint-now": "1"}
    objects.start_pod(cluster.add_pod(5), 5)
    assert _find_endpoint(cluster.step(10)).wish == ""
    cluster.tell(_last_pod(cluster), 20, stage="prepare", phase="tokenize")
    progress = cluster.status["progress"]
    assert (progress["stage"], progress["phase"], progress.get("percent", 0)) == ("prepare", "tokenize", 0)


# Interruptions.


def _interrupt(cluster: Cluster, seconds: float, code: int = 143, text: str = "", **how: Any) -> None:
    """End the running pod; the Job makes another one, as it does for ends that its policy ignores."""
    objects.end_pod(_last_pod(cluster), code, seconds, text, **how)
    cluster.step(seconds + 1)
    objects.start_pod(cluster.add_pod(seconds + 10), seconds + 20)
    cluster.answer = None
    cluster.step(seconds + 21)


def test_what_is_lost_by_an_interruption_is_counted_once_and_told() -> None:
    cluster = _to_running()
    cluster.tell(_last_pod(cluster), 100, **REPORT, checkpoints=[make_checkpoint(100, seconds=90)], resumedFromStep=0)
    _interrupt(cluster, 110, disruption="evicted by a drain")
    plan = cluster.tell(_last_pod(cluster), 140, stage="train", phase="load")
    assert (cluster.status["progress"]["step"], list_reasons(plan)) == (120, []), "it has not said where it begins"
    plan = cluster.tell(
        _last_pod(cluster), 150, **REPORT | {"phase": "train", "step": 101, "percent": 40}, resumedFromStep=100
    )
    [event] = plan.events
    assert (event.reason, event.message) == (
        "Resumed",
        "attempt 1 goes on from step 100; at least 20 steps are made again (20 s)",
    )
    status = cluster.status
    assert (status["lostSteps"], status["lostSeconds"], status["preemptionCount"]) == (20, 20, 1)
    assert status["attempts"][-1]["resumedFromStep"] == 100
    assert (status["progress"]["step"], status["progress"]["percent"]) == (101, 40)
    again = cluster.tell(_last_pod(cluster), 160, **REPORT | {"step": 140, "percent": 56}, resumedFromStep=100)
    assert (again.events, cluster.status["lostSteps"]) == ((), 20)


def test_steps_that_were_no_news_are_lost_all_the_same() -> None:
    cluster = _to_running()
    cluster.tell(_last_pod(cluster), 100, **REPORT, checkpoints=[make_checkpoint(100, seconds=90)], resumedFromStep=0)
    assert cluster.tell(_last_pod(cluster), 109, **REPORT | {"step": 129, "percent": 51}).status_patch == {}
    _interrupt(cluster, 110, disruption="evicted by a drain")
    [event] = cluster.tell(_last_pod(cluster), 150, **REPORT | {"step": 100}, resumedFromStep=100).events
    assert event.message == "attempt 1 goes on from step 100; at least 29 steps are made again (20 s)"


def test_a_pod_that_saved_before_it_ended_loses_nothing() -> None:
    cluster = _to_running()
    cluster.tell(_last_pod(cluster), 100, **REPORT)
    saved = make_checkpoint(131, seconds=109)
    _interrupt(cluster, 110, text=objects.build_message("train", 1, 143, "PodDisrupted", step=131, checkpoints=[saved]))
    assert [item["step"] for item in cluster.status["checkpoints"]] == [131]
    [event] = cluster.tell(_last_pod(cluster), 150, **REPORT | {"step": 131}, resumedFromStep=131).events
    assert event.message == "attempt 1 goes on from step 131; no step is lost"
    assert (cluster.status["lostSteps"], cluster.status["lostSeconds"]) == (0, 0)


def test_the_end_of_a_former_pod_is_not_told_again_when_its_successor_is_evicted() -> None:
    cluster = _to_running()
    text = objects.build_message("train", 1, 143, "PodDisrupted", step=131, resumedFromStep=0)
    objects.end_pod(_last_pod(cluster), 143, 100, text)
    cluster.step(101)
    objects.start_pod(cluster.add_pod(110), 110)
    cluster.tell(_last_pod(cluster), 130, **REPORT | {"step": 140}, resumedFromStep=131)
    cluster.pods.pop()

    plan = cluster.step(140)

    assert "Resumed" not in list_reasons(plan)
    assert (cluster.status.get("lostSteps", 0), cluster.status["attempts"][-1]["resumedFromStep"]) == (0, 131)


def test_a_run_without_a_usable_checkpoint_begins_anew() -> None:
    cluster = _to_running()
    cluster.tell(_last_pod(cluster), 100, **REPORT)
    _interrupt(cluster, 110, disruption="node gone")
    [event] = cluster.tell(_last_pod(cluster), 150, stage="train", step=0, resumedFromStep=0).events
    assert event.message == (
        "attempt 1 begins anew: no checkpoint could be used; at least 120 steps are made again (85 s)"
    )
    assert (cluster.status["lostSteps"], cluster.status["lostSeconds"]) == (120, 85)


def test_the_first_pod_of_a_run_resumes_nothing() -> None:
    cluster = _to_running()
    plan = cluster.tell(_last_pod(cluster), 100, **REPORT, resumedFromStep=0)
    assert (plan.events, cluster.status.get("lostSteps", 0)) == ((), 0)
    assert "resumedFromStep" not in cluster.status["attempts"][-1]


def test_the_next_attempt_goes_on_where_the_message_of_a_crash_says() -> None:
    cluster = _to_running()
    saved = [make_checkpoint(100, seconds=90)]
    cluster.tell(_last_pod(cluster), 100, **REPORT, checkpoints=saved)
    message = objects.build_message("train", 1, 85, "Internal", step=128, warnings=["checkpoint step 110 is damaged"])
    objects.end_pod(_last_pod(cluster), 85, 120, message)
    objects.end_child(cluster.children[-1], "Failed", 121, "BackoffLimitExceeded")
    cluster.step(122)
    assert "checkpoint step 110 is damaged" in cluster.status["warnings"]
    cluster.step(150)
    objects.start_pod(cluster.add_pod(155), 160)
    cluster.step(161)
    [event] = cluster.tell(_last_pod(cluster), 170, **REPORT | {"step": 100}, resumedFromStep=100, lostSteps=5).events
    assert event.message == "attempt 2 goes on from step 100; at least 28 steps are made again (31 s)"
    assert cluster.status["attempts"][-1]["resumedFromStep"] == 100
    assert cluster.status.get("preemptionCount", 0) == 0


def test_a_pod_nobody_could_ask_tells_at_its_end_where_it_began() -> None:
    cluster = _to_running()
    objects.end_pod(_last_pod(cluster), 137, 100)
    objects.end_child(cluster.children[-1], "Failed", 101, "BackoffLimitExceeded")
    cluster.step(102)
    cluster.step(140)
    cluster.end(0, 300, objects.build_trained_message(2, resumedFromStep=80, lostSteps=14, checkpoints=[]))
    plan = cluster.step(301)
    assert cluster.status["phase"] == "Succeeded"
    assert "Resumed" in list_reasons(plan)
    assert (cluster.status["lostSteps"], cluster.status["attempts"][-1]["resumedFromStep"]) == (14, 80)


def test_a_message_that_names_checkpoints_of_somebody_else_is_not_believed_in_that() -> None:
    cluster = _to_running()
    foreign = make_checkpoint(100, uri="s3://elsewhere/step/")
    objects.end_pod(
        _last_pod(cluster), 143, 100, objects.build_message("train", 1, 143, "PodDisrupted", checkpoints=[foreign])
    )
    cluster.step(101)
    assert "checkpoints" not in cluster.status


def test_lost_time_is_counted_in_the_metrics() -> None:
    metrics = Metrics()
    kind = FineTuneJobs(objects.SETTINGS, metrics)
    cluster = _to_running()
    for seconds in (0, 12, 12, 30):
        cluster.job["status"] |= {
            "lostSeconds": seconds - 12 if seconds == 12 else cluster.status.get("lostSeconds", 0)
        }
        plan = Plan(cluster.status | {"lostSeconds": seconds})
        kind.record_plan(cluster.job, plan)
        cluster.job["status"] = plan.status
    text = metrics.build_exposition().decode()
    assert 'finetune_job_lost_step_seconds_total{namespace="demo"} 42.0' in text


# How often a run may be interrupted.


def _interrupt_by_drain(cluster: Cluster, seconds: float) -> None:
    _interrupt(cluster, seconds, disruption="evicted by a drain")


def _interrupt_by_signal(cluster: Cluster, seconds: float) -> None:
    _interrupt(cluster, seconds)


def _interrupt_by_queue(cluster: Cluster, seconds: float) -> None:
    child = cluster.children[-1]
    child["spec"]["suspend"] = True
    cluster.pods.pop()
    cluster.step(seconds)
    child["spec"]["suspend"] = False
    objects.start_pod(cluster.add_pod(seconds + 10), seconds + 20)
    cluster.step(seconds + 21)


@pytest.mark.parametrize("interrupt", [_interrupt_by_drain, _interrupt_by_signal, _interrupt_by_queue])
def test_a_run_that_is_interrupted_too_often_has_failed(interrupt: Any) -> None:
    cluster = _to_running(spec__runPolicy__preemptionLimit=1)
    interrupt(cluster, 100)
    assert (cluster.status["preemptionCount"], cluster.status["phase"]) == (1, "Training")
    interrupt(cluster, 200)
    failure = cluster.status["failure"]
    assert (failure["reason"], failure["message"]) == (
        "PreemptionLimitExceeded",
        "the run was interrupted 2 times, of which preemptionLimit allows 1",
    )
    assert "preemptionLimit" in failure["remedy"]
    assert [child["metadata"]["labels"]["finetune.dev/stage"] for child in cluster.children] == ["prepare"]


def test_an_old_disruption_is_not_told_again_when_its_successor_crashes() -> None:
    cluster = _to_running()
    _interrupt_by_drain(cluster, 100)
    objects.end_pod(_last_pod(cluster), 1, 200)
    cluster.step(201)
    objects.end_child(cluster.children[-1], "Failed", 202, "BackoffLimitExceeded")
    plan = cluster.step(203)
    assert (cluster.status["preemptionCount"], cluster.status["failedAttempts"]) == (1, 1)
    assert "PodDisrupted" not in list_reasons(plan)


def test_the_bounds_of_the_status_hold_whatever_is_told() -> None:
    layout = artifacts.build_run_layout("s3://runs/movies", objects.UID)
    long = REPORT | {"checkpoints": [make_checkpoint(step) for step in range(10)], "estimatedRemainingSeconds": 10**15}
    cluster = _to_running()
    assert reports.parse_report(_write(long), layout) is not None
    cluster.tell(_last_pod(cluster), 60, **long)
    assert "estimatedCompletionTime" not in cluster.status["progress"], "no time of a calendar"
    FineTuneJobStatus.model_validate(cluster.status)

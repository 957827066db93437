"""What a running trainer tells of itself over HTTP, how it estimates the rest, and how a checkpoint is asked for."""

import http.client
import json
import socket
from typing import Any

import pytest

from finetune_api import live, run
from finetune_api.kinds.finetunejob.status import CheckpointStatus
from finetune_api.live import LiveProgress
from finetune_api.run import Stage
from finetune_trainer.telemetry import live as live_state
from finetune_trainer.telemetry import prometheus, server
from finetune_trainer.telemetry.live import LiveState
from finetune_trainer.telemetry.pace import RECENT_STEPS, Pace

POD_UID = "6f1c1a52-0000-4000-8000-000000000001"


class Clock:
    """A clock that goes where the test sets it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def _build_checkpoint(step: int, **changes: Any) -> CheckpointStatus:
    fields: dict[str, Any] = {
        "step": step,
        "attempt": 1,
        "uri": f"s3://runs/movies/runs/u/attempts/1/checkpoints/step-{step:06}/",
        "size": "12.0Mi",
        "time": "2026-01-31T12:00:00Z",
    }
    return CheckpointStatus(**(fields | changes))


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch) -> LiveState:
    """The state of a process that has just begun."""
    fresh = LiveState(Clock())
    monkeypatch.setattr(live_state, "STATE", fresh)
    return fresh


def _start(state: LiveState, monkeypatch: pytest.MonkeyPatch, stage: Stage = Stage.TRAIN) -> int:
    monkeypatch.setenv(run.POD_UID_VARIABLE, POD_UID)
    port = server.start(stage, 0, state)
    assert port is not None
    return port


def _ask(port: int, method: str, path: str, pod_uid: str | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path, headers={live.POD_HEADER: pod_uid} if pod_uid is not None else {})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body


def _train(state: LiveState, steps: int, seconds: float = 2.0, first: int = 1) -> None:
    clock: Any = state._clock
    for step in range(first, first + steps):
        clock.now += seconds
        prometheus.record_step(step, seconds)
        prometheus.record_tokens(1024)


def test_what_was_recorded_is_told(state: LiveState, monkeypatch: pytest.MonkeyPatch) -> None:
    port = _start(state, monkeypatch)
    prometheus.record_plan(250)
    prometheus.record_resumed(100, 12)
    prometheus.record_phase("train")
    _train(state, 20, first=101)
    prometheus.record_loss(0.41237891, "train")
    prometheus.record_evaluation(
        120, {"loss": 0.3, "accuracy": 0.91, "f1": 0.9, "recall": 0.8, "precision": 0.7}, "accuracy", is_best=True
    )
    prometheus.record_checkpoints([_build_checkpoint(100)])
    prometheus.record_checkpoint_failure("the store refused it")
    code, body = _ask(port, "GET", live.PROGRESS_PATH, POD_UID)
    assert code == 200
    assert json.loads(body) == {
        "stage": "train",
        "phase": "train",
        "step": 120,
        "totalSteps": 250,
        "percent": 48,
        "estimatedRemainingSeconds": 260,
        "tokensPerSecond": 512,
        "trainLoss": "0.412379",
        "resumedFromStep": 100,
        "lostSteps": 12,
        "lastEvaluation": {
            "step": 120,
            "isBest": True,
            "metrics": [
                {"name": name, "value": value, "split": "validation"}
                for name, value in (("accuracy", "0.91"), ("loss", "0.3"), ("f1", "0.9"), ("recall", "0.8"))
            ],
        },
        "checkpoints": [_build_checkpoint(100).model_dump(mode="json", exclude_none=True)],
        "checkpointFailure": "the store refused it",
    }


def test_a_prepare_stage_tells_its_phases(state: LiveState, monkeypatch: pytest.MonkeyPatch) -> None:
    port = _start(state, monkeypatch, Stage.PREPARE)
    assert json.loads(_ask(port, "GET", live.PROGRESS_PATH)[1]) == {"stage": "prepare"}
    prometheus.record_phase("tokenize")
    assert json.loads(_ask(port, "GET", live.PROGRESS_PATH)[1]) == {"stage": "prepare", "phase": "tokenize"}


def test_a_checkpoint_that_is_saved_takes_the_failure_before_it_back(state: LiveState) -> None:
    prometheus.record_checkpoint(_build_checkpoint(10), 1.5)
    prometheus.record_checkpoint_failure("no answer")
    prometheus.record_checkpoint(_build_checkpoint(20))
    found = state.read()
    assert [item.step for item in found.checkpoints or []] == [20, 10]
    assert found.checkpoint_failure is None
    prometheus.record_checkpoints([_build_checkpoint(20)])
    assert [item.step for item in state.read().checkpoints or []] == [20]
    read = prometheus.REGISTRY.get_sample_value
    assert read("finetune_trainer_last_checkpoint_timestamp_seconds") == 1769860800
    assert read("finetune_trainer_checkpoint_bytes") == 12 * 2**20


def test_no_secret_is_told(state: LiveState, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG")
    prometheus.record_checkpoint_failure("refused for wJalrXUtnFEMI/K7MDENG")
    assert state.read().checkpoint_failure == "refused for ***"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_is_not_told(state: LiveState, value: float) -> None:
    prometheus.record_loss(0.5, "train")
    prometheus.record_loss(value, "train")
    assert state.read() == LiveProgress()


# The wish for a checkpoint.


@pytest.mark.parametrize(
    ("request_", "want_code"),
    [
        (("POST", live.CHECKPOINT_PATH, POD_UID), 202),
        (("POST", live.CHECKPOINT_PATH, None), 421),
        (("POST", live.CHECKPOINT_PATH, "another"), 421),
        (("POST", live.PROGRESS_PATH, POD_UID), 404),
        (("GET", live.PROGRESS_PATH, "another"), 421),
        (("PUT", live.CHECKPOINT_PATH, POD_UID), 501),
    ],
)
def test_only_the_pod_that_is_meant_takes_a_wish(
    state: LiveState, monkeypatch: pytest.MonkeyPatch, request_: tuple[str, str, str | None], want_code: int
) -> None:
    port = _start(state, monkeypatch)
    assert _ask(port, *request_)[0] == want_code
    assert live_state.take_checkpoint_request() == (want_code == 202)
    assert not live_state.take_checkpoint_request()


def test_a_prepare_stage_has_nothing_to_save(state: LiveState, monkeypatch: pytest.MonkeyPatch) -> None:
    port = _start(state, monkeypatch, Stage.PREPARE)
    assert _ask(port, "POST", live.CHECKPOINT_PATH, POD_UID)[0] == 409
    assert not live_state.take_checkpoint_request()


def test_without_a_uid_of_its_own_a_pod_takes_no_wish(state: LiveState, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(run.POD_UID_VARIABLE, raising=False)
    port = server.start(Stage.TRAIN, 0, state)
    assert port is not None
    assert _ask(port, "POST", live.CHECKPOINT_PATH, "")[0] == 421


def test_clients_that_say_nothing_are_bounded_and_keep_nobody_else_out_for_long(
    state: LiveState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server._Handler, "timeout", 1)
    port = _start(state, monkeypatch)
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(server.MAX_CONNECTIONS)]
    with socket.create_connection(("127.0.0.1", port)) as further:
        further.settimeout(10)
        assert further.recv(1) == b"", "closed: all are taken"
    for item in silent:
        item.settimeout(30)
        assert item.recv(1) == b"", "closed after a while"
        item.close()
    assert _ask(port, "GET", live.PROGRESS_PATH)[0] == 200


# How long it still takes.


@pytest.fixture
def clock() -> Clock:
    return Clock()


def _step(pace: Pace, clock: Clock, *seconds: float) -> None:
    for item in seconds:
        clock.now += item
        pace.record_step()


def test_nothing_is_estimated_before_the_first_step(clock: Clock) -> None:
    pace = Pace(clock)
    pace.enter_phase("load")
    assert (pace.estimate_remaining_seconds(10), pace.compute_tokens_per_second()) == (None, None)


def test_a_slow_step_among_many_does_not_count(clock: Clock) -> None:
    pace = Pace(clock)
    pace.enter_phase("train")
    _step(pace, clock, 60.0, *[2.0] * 9)
    assert pace.estimate_remaining_seconds(100) == 200


def test_only_recent_steps_count(clock: Clock) -> None:
    pace = Pace(clock)
    pace.enter_phase("train")
    _step(pace, clock, *[9.0] * 100, *[1.0] * RECENT_STEPS)
    assert pace.estimate_remaining_seconds(100) == 100


def test_evaluations_to_come_count_and_make_no_step_slower(clock: Clock) -> None:
    pace = Pace(clock)
    pace.begin_at(0)
    pace.enter_phase("evaluate")
    clock.now += 7
    pace.enter_phase("train")
    for step in (10, 20):
        _step(pace, clock, *[1.0] * 10)
        pace.enter_phase("evaluate")
        clock.now += 30
        pace.record_evaluation(step)
        pace.enter_phase("train")
    _step(pace, clock, 1.0)
    # 19 steps, one evaluation at step 30 and one at 40 that is not before the end of these; the report like the base's.
    assert pace.estimate_remaining_seconds(19) == 19 + 30 + 7
    assert pace.estimate_remaining_seconds(29) == 29 + 60 + 7


def test_a_pod_that_goes_on_learns_from_its_own_evaluations_how_far_they_are_apart(clock: Clock) -> None:
    pace = Pace(clock)
    pace.begin_at(95)
    pace.enter_phase("train")
    for step in (100, 150):
        _step(pace, clock, *[1.0] * 5)
        pace.enter_phase("evaluate")
        clock.now += 10
        pace.record_evaluation(step)
        pace.enter_phase("train")
        assert pace.estimate_remaining_seconds(100) == (100 if step == 100 else 120)

"""What is believed of what a running trainer tells: its bounds, whatever stands in it."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from finetune_api import live
from finetune_api.kinds.finetunejob import status
from finetune_api.live import LiveProgress

CHECKPOINT = {
    "step": 100,
    "attempt": 1,
    "uri": "s3://runs/movies/runs/u/attempts/1/checkpoints/step-000100/",
    "size": "1.9Gi",
    "time": "2026-01-31T12:00:00Z",
    "metrics": [{"name": "accuracy", "value": "0.91", "split": "validation"}],
}
EVERYTHING: dict[str, Any] = {
    "stage": "train",
    "phase": "train",
    "step": 120,
    "totalSteps": 250,
    "percent": 48,
    "estimatedRemainingSeconds": 40,
    "tokensPerSecond": 5120,
    "trainLoss": "0.41",
    "lastEvaluation": {"step": 100, "metrics": [{"name": "accuracy", "value": "0.91"}], "isBest": True},
    "resumedFromStep": 100,
    "lostSteps": 12,
    "checkpoints": [CHECKPOINT],
    "checkpointFailure": "the store refused it",
}


def _parse(**changes: Any) -> LiveProgress:
    return LiveProgress.model_validate(EVERYTHING | changes, extra="ignore")


def test_a_whole_answer_is_read_as_it_was_written() -> None:
    assert json.loads(_parse().model_dump_json(exclude_none=True)) == EVERYTHING | {
        "lastEvaluation": EVERYTHING["lastEvaluation"] | {"metrics": [{"name": "accuracy", "value": "0.91"}]},
    }


@pytest.mark.parametrize("name", EVERYTHING)
def test_every_field_may_be_absent(name: str) -> None:
    found = LiveProgress.model_validate({key: value for key, value in EVERYTHING.items() if key != name})
    assert name not in json.loads(found.model_dump_json(exclude_none=True))


def test_a_field_of_a_newer_trainer_is_passed_over() -> None:
    assert _parse(mood="good", phase="anneal").phase == "anneal"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("stage", "TRAIN"), ("phase", "a" * 17), ("phase", "x\u202ey"), ("step", -1), ("step", 10**15 + 1),
        ("step", 1.5), ("percent", 101), ("estimatedRemainingSeconds", 10**30), ("tokensPerSecond", "NaN"),
        ("trainLoss", "NaN"), ("trainLoss", "1" * 33), ("trainLoss", 0.5),
        ("lastEvaluation", {"step": 1, "metrics": [{"name": "a", "value": "1"}] * 5}),
        ("checkpoints", [CHECKPOINT] * (status.MAX_CHECKPOINTS + 1)),
        ("checkpoints", [CHECKPOINT | {"time": "yesterday"}]),
        ("checkpoints", [CHECKPOINT | {"time": "2026-02-30T00:00:00Z"}]),
        ("checkpoints", [CHECKPOINT | {"time": "2026-02-01"}]), ("checkpoints", [CHECKPOINT | {"size": "big"}]),
        ("checkpoints", [CHECKPOINT | {"uri": "s3://" + "a" * 1280}]), ("checkpoints", [CHECKPOINT | {"attempt": 0}]),
        ("checkpointFailure", "a" * 1025),
    ],
)  # fmt: skip
def test_a_value_beyond_its_bounds_makes_the_answer_nothing(name: str, value: object) -> None:
    with pytest.raises(ValidationError):
        _parse(**{name: value})


def test_the_longest_answer_fits_into_what_is_read() -> None:
    metric = {"name": "m" * 63, "value": "1" * 64, "split": "v" * 16}
    longest = EVERYTHING | {
        "lastEvaluation": {"step": 10**15, "metrics": [metric] * 4, "isBest": False},
        "checkpointFailure": "é" * 1024,
        "checkpoints": [CHECKPOINT | {"metrics": [metric] * 4, "uri": "s3://runs/" + "a" * 500}] * 10,
    }
    text = LiveProgress.model_validate(longest).model_dump_json(exclude_none=True)
    assert len(text.encode()) < live.MAX_PROGRESS_BYTES

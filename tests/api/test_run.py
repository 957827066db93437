"""What passes between operator and trainer beside the spec: the end of a stage within 4 KiB, and the time to end."""

import json

import pytest

from finetune_api import run
from finetune_api.kinds.finetunejob.status import CheckpointStatus, Metric, MetricsStatus
from finetune_api.run import Stage, TerminationMessage

DIGEST = "a" * 64


def _build_checkpoint(step: int) -> CheckpointStatus:
    return CheckpointStatus(
        step=step,
        attempt=2,
        uri=f"s3://bucket/{'folder/' * 20}step-{step:06}/",
        size="1.9Gi",
        time="2026-01-31T12:00:00Z",
        metrics=[Metric(name="accuracy", value="0.91", split="validation")],
    )


def _build(num_checkpoints: int, text: str = "", num_metrics: int = 1) -> TerminationMessage:
    metrics = [Metric(name=f"metric-{number}", value="0.123456", split="test") for number in range(num_metrics)]
    return TerminationMessage(
        stage=Stage.TRAIN,
        attempt=2,
        exit_code=0,
        reason="Completed",
        message=text,
        checkpoint_failure=text,
        step=250,
        resumed_from_step=100,
        lost_steps=7,
        checkpoints=[_build_checkpoint(1000 - step) for step in range(num_checkpoints)],
        metrics=MetricsStatus(tuned=metrics),
        manifest_sha256=DIGEST,
    )


@pytest.mark.parametrize(
    ("num_checkpoints", "text", "num_metrics", "want_checkpoints", "want_metrics"),
    [
        (0, "", 1, 0, 1),
        (10, "", 1, 10, 1),
        (10, "a long story " * 100, 32, 1, 32),
        (10, "a long story " * 100, 0, 1, 0),
    ],
    ids=["none", "all fit", "all but the newest go before any text", "also without metrics"],
)
def test_a_message_over_4_kib_loses_checkpoints_first_and_never_a_digest(
    num_checkpoints: int, text: str, num_metrics: int, want_checkpoints: int, want_metrics: int
) -> None:
    written = run.build_termination_text(_build(num_checkpoints, text, num_metrics))
    assert len(written.encode()) <= run.MAX_TERMINATION_MESSAGE_BYTES
    found = json.loads(written)
    assert [item["step"] for item in found.get("checkpoints", [])] == list(range(1000, 1000 - want_checkpoints, -1))
    assert len(found["metrics"]["tuned"]) == want_metrics
    assert (found["manifestSHA256"], found["resumedFromStep"], found["lostSteps"]) == (DIGEST, 100, 7)
    assert TerminationMessage.model_validate_json(written).step == 250


@pytest.mark.parametrize(
    ("checkpoint_bytes", "want_seconds"),
    [(0, 120), (3_000_000_000, 120), (3_000_000_001, 121), (10_000_000_000, 260), (10**15, 1800)],
    ids=["nothing to save", "saved within the least", "a byte more", "10 GB at 50 MB/s", "more than can be waited for"],
)
def test_the_grace_period_follows_from_the_size_of_the_state(checkpoint_bytes: int, want_seconds: int) -> None:
    assert run.compute_grace_seconds(checkpoint_bytes) == want_seconds

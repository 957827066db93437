"""The single rules as tables: back-off, deadlines, suspension, TTL."""

from datetime import UTC, datetime, timedelta

import pytest

from finetune_api.kinds.finetunejob.status import Reason
from finetune_operator.jobs.policies import elapsed, retries, suspend, ttl
from finetune_operator.jobs.policies.suspend import Step

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("failures", "seconds"),
    [(1, 10), (2, 20), (3, 40), (4, 80), (5, 160), (6, 320), (7, 360), (8, 360), (20, 360)],
)
def test_back_off_doubles_to_six_minutes(failures: int, seconds: int) -> None:
    waits = [retries.compute_backoff_seconds(failures, f"uid/{attempt}") for attempt in range(200)]
    assert all(seconds * 0.9 <= wait <= seconds * 1.1 for wait in waits)
    assert max(waits) - min(waits) > seconds * 0.15, "the jitter is used"


def test_back_off_is_the_same_after_a_restart() -> None:
    times = {retries.compute_retry_time(NOON, 3, is_counted=True, uid="u", attempt=3) for _ in range(3)}
    assert len(times) == 1


def test_an_uncounted_end_waits_ten_seconds_whatever_failed_before() -> None:
    assert retries.compute_retry_time(NOON, 7, is_counted=False, uid="u", attempt=8) == NOON + timedelta(seconds=10)


@pytest.mark.parametrize(
    ("failed", "limit", "want"), [(0, 0, False), (1, 0, True), (1, 1, False), (2, 1, True), (4, 3, True)]
)
def test_failures_beyond_the_limit_are_spent(failed: int, limit: int, want: bool) -> None:
    assert retries.is_spent(failed, limit) is want


@pytest.mark.parametrize(
    ("causes", "want"),
    [
        (["OutOfMemory"], Reason.OUT_OF_MEMORY),
        (["OutOfMemory", "OutOfMemory"], Reason.OUT_OF_MEMORY),
        (["Internal", "OutOfMemory"], Reason.BACKOFF_LIMIT_EXCEEDED),
    ],
)
def test_the_final_reason_is_the_cause_if_it_was_always_the_same(causes: list[str], want: Reason) -> None:
    assert retries.decide_final_reason(causes, Reason.OUT_OF_MEMORY) is want


@pytest.mark.parametrize(
    ("wanted", "condemned", "job", "deleting", "want"),
    [
        (False, False, False, False, Step.GO_ON),
        (False, False, True, False, Step.GO_ON),
        (False, False, True, True, Step.GO_ON),
        (True, False, True, False, Step.STOP),
        (True, False, True, True, Step.WAIT),
        (True, False, False, False, Step.HOLD),
        (True, True, True, False, Step.STOP),
        (True, True, True, True, Step.WAIT),
        (True, True, False, False, Step.HOLD),
        (False, True, True, False, Step.STOP),
        (False, True, True, True, Step.WAIT),
        (False, True, False, False, Step.GO_ON),
    ],
)
def test_every_case_of_suspension(wanted: bool, condemned: bool, job: bool, deleting: bool, want: Step) -> None:
    step = suspend.decide_step(is_wanted=wanted, is_stopping=condemned, has_job=job, is_job_deleting=deleting)
    assert step is want


@pytest.mark.parametrize(("seconds", "want"), [(0, 0), (1.9, 1), (-5, 0), (86_400, 86_400)])
def test_no_duration_is_negative(seconds: float, want: int) -> None:
    assert elapsed.compute_elapsed_seconds(NOON, NOON + timedelta(seconds=seconds)) == want


def test_no_beginning_is_no_duration() -> None:
    assert elapsed.compute_elapsed_seconds(None, NOON) == 0


@pytest.mark.parametrize(("left", "pending", "want"), [(100, 60, 160), (0, 60, 61), (-5, 60, 61)])
def test_the_jobs_own_limit_leaves_time_to_wait(left: int, pending: int, want: int) -> None:
    assert elapsed.compute_job_deadline_seconds(left, pending) == want


def test_only_jobs_with_another_ttl_are_changed() -> None:
    assert ttl.find_changes([("a", "1", None), ("b", "2", 5), ("c", "3", 6)], 5) == [("a", "1"), ("c", "3")]

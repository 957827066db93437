"""The queue, the metrics and the signs of life, with a clock of the test's own."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
import scripted_api
from cluster_objects import SETTINGS
from scripted_api import ScriptedApi

from finetune_api import metrics as series
from finetune_api.kinds.finetunejob.status import Phase
from finetune_operator.jobs import kind
from finetune_operator.jobs.metrics import JobFacts, JobMetrics
from finetune_operator.runtime import workqueue
from finetune_operator.runtime.health import Health
from finetune_operator.runtime.kind import Key
from finetune_operator.runtime.metrics import Metrics
from finetune_operator.runtime.workqueue import KeyQueue

A, B = ("demo", "a"), ("demo", "b")
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def _pop_all(queue: KeyQueue) -> list[Key]:
    found: list[Key] = []
    while (key := queue.pop()[0]) is not None:
        found.append(key)
    return found


def test_keys_coalesce() -> None:
    queue = KeyQueue(Clock())
    for key in (A, A, B, A):
        queue.add(key)
    assert _pop_all(queue) == [A, B]


def test_a_key_is_never_out_twice_at_once() -> None:
    clock = Clock()
    queue = KeyQueue(clock)
    queue.add(A)
    assert queue.pop() == (A, None)
    queue.add(A)
    queue.add(B)
    assert _pop_all(queue) == [B]
    queue.finish(A)
    assert queue.pop() == (None, 1.0), "not sooner than a second"
    clock.now += 1.0
    assert queue.pop()[0] == A


def test_a_key_asked_for_while_away_is_not_lost() -> None:
    clock = Clock()
    queue = KeyQueue(clock)
    queue.add(A)
    queue.pop()
    queue.add(A, 500)
    queue.add(A)
    queue.finish(A)
    clock.now += 1.0
    assert queue.pop()[0] == A


def test_the_earlier_time_wins() -> None:
    clock = Clock()
    queue = KeyQueue(clock)
    queue.add(A, 60)
    queue.add(A, 5)
    queue.add(A, 30)
    assert queue.pop() == (None, 5.0)
    clock.now += 5
    assert _pop_all(queue) == [A]
    clock.now += 100
    assert _pop_all(queue) == []


def test_who_takes_urgent_keys_alone_leaves_the_others() -> None:
    clock = Clock()
    queue = KeyQueue(clock)
    queue.add(A)
    queue.add(B, -30)
    assert queue.pop(only_urgent=True) == (B, None)
    assert queue.pop(only_urgent=True) == (None, None)
    queue.finish(B)
    queue.add(B)
    assert queue.pop(only_urgent=True) == (None, None), "it is new no more"
    assert queue.pop() == (A, None)


def test_an_urgent_key_is_taken_once_whoever_takes_it() -> None:
    queue = KeyQueue(Clock())
    queue.add(A, -30)
    assert queue.pop() == (A, None)
    assert queue.pop(only_urgent=True) == (None, None)


def test_taking_waits_for_the_time() -> None:
    async def take_two() -> list[Key]:
        queue = KeyQueue()
        queue.add(B, 0.05)
        waiting = asyncio.create_task(queue.take())
        await asyncio.sleep(0)
        queue.add(A)
        return [await waiting, await queue.take()]

    assert asyncio.run(take_two()) == [A, B]


@pytest.mark.parametrize(
    ("failures", "least", "most"), [(1, 1, 2), (2, 2, 4), (5, 16, 32), (9, 150, 300), (50, 150, 300)]
)
def test_retries_back_off_to_five_minutes(failures: int, least: float, most: float) -> None:
    assert workqueue.compute_retry_seconds(failures, 0.0) == least
    assert workqueue.compute_retry_seconds(failures, 1.0) == most


def _facts(name: str, phase: Phase, pending_since: datetime | None = None) -> JobFacts:
    return JobFacts("demo", name, phase, "LoRA", "team-a", 20, pending_since)


def _samples(metrics: Metrics) -> dict[str, float]:
    lines = [line for line in metrics.build_exposition().decode().splitlines() if not line.startswith("#")]
    return {key: float(value) for key, _, value in (line.rpartition(" ") for line in lines)}


def test_counters_of_a_namespace_begin_at_0() -> None:
    metrics = Metrics()
    JobMetrics(metrics, lambda: NOON).record_namespace("demo")
    samples = _samples(metrics)
    finished = [key for key in samples if key.startswith("finetune_jobs_finished_total{")]
    assert len(finished) == 2 + 22
    assert {samples[key] for key in finished} == {0.0}
    assert samples['finetune_job_attempts_total{cause="oom",namespace="demo"}'] == 0


def test_gauges_tell_of_active_jobs_only_and_forget_deleted_ones() -> None:
    metrics = Metrics()
    jobs = JobMetrics(metrics, lambda: NOON)
    jobs.record_job(_facts("a", Phase.TRAINING))
    jobs.record_job(_facts("b", Phase.SUCCEEDED))
    jobs.record_job(_facts("c", Phase.QUEUED, datetime(2026, 3, 1, 11, 59, tzinfo=UTC)))
    samples = _samples(metrics)
    assert samples['finetune_jobs{namespace="demo",phase="Succeeded"}'] == 1
    assert samples['finetune_jobs{namespace="demo",phase="Pending"}'] == 0
    assert samples['finetune_job_progress_ratio{name="a",namespace="demo"}'] == 0.2
    assert not any('name="b"' in key for key in samples)
    assert samples['finetune_job_oldest_pending_age_seconds{namespace="demo"}'] == 60
    jobs.forget_job(("demo", "a"))
    jobs.forget_job(("demo", "c"))
    after = _samples(metrics)
    assert not any('name="' in key for key in after)
    assert after['finetune_job_oldest_pending_age_seconds{namespace="demo"}'] == 0


def test_series_of_a_namespace_without_jobs_are_dropped_after_an_hour() -> None:
    now, metrics = [NOON], Metrics()
    jobs = JobMetrics(metrics, lambda: now[0])
    jobs.record_job(_facts("a", Phase.TRAINING))
    now[0] += timedelta(hours=2)
    assert any("demo" in key for key in _samples(metrics)), "it has a job"
    jobs.forget_job(("demo", "a"))
    now[0] += timedelta(minutes=59)
    assert any("demo" in key for key in _samples(metrics)), "the last counts can still be scraped"
    now[0] += timedelta(minutes=2)
    assert not any("demo" in key for key in _samples(metrics))
    jobs.record_job(_facts("a", Phase.TRAINING))
    assert _samples(metrics)['finetune_job_attempts_total{cause="oom",namespace="demo"}'] == 0


def test_every_series_of_the_operator_is_served_under_its_name() -> None:
    metrics = Metrics()
    JobMetrics(metrics, lambda: NOON).record_job(_facts("a", Phase.TRAINING))
    text = metrics.build_exposition().decode()
    wanted = [item for name, item in vars(series).items() if name.startswith(("OPERATOR_", "JOB"))]
    assert len(wanted) == 19
    for item in wanted:
        assert f"# TYPE {item.name} {item.kind}" in text, item.name
    assert "_created" not in text.replace("finetune_jobs_created_total", "")


def test_a_process_without_resyncs_is_unhealthy(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("finetune_operator.runtime.health.time.monotonic", lambda: now[0])
    health = Health(Metrics(), resync_seconds=120)
    assert (health.find_problem(), health.is_ready) == ("", False)
    now[0] += 600
    assert health.find_problem() == ""
    now[0] += 1
    assert health.find_problem() == "no resync for 601 s, more than 600 s"
    health.record_resync(("jobs",), has_drift=False)
    assert (health.find_problem(), health.is_ready) == ("", True)


@pytest.mark.parametrize(
    ("phase", "observed", "want"),
    [("Succeeded", 3, True), ("Failed", 3, True), ("Failed", 2, False), ("Training", 3, False), (None, -1, False)],
)
def test_only_a_run_whose_newest_spec_was_seen_counts_as_finished(phase: str | None, observed: int, want: bool) -> None:
    stored = {"phase": phase, "observedGeneration": observed}
    found = kind.find_final_phase({"metadata": {"generation": 3}, "status": stored})
    assert (found is not None) is want


def test_an_object_is_about_itself_or_about_the_parent_its_labels_name() -> None:
    own = {"kind": "FineTuneJob", "metadata": {"namespace": "demo", "name": "movies"}}
    child = {"kind": "Job", "metadata": {"namespace": "demo", "name": "x", "labels": {"finetune.dev/job": "movies"}}}
    stranger = {"kind": "Pod", "metadata": {"namespace": "demo", "name": "x"}}
    controller = scripted_api.OperatorParts(ScriptedApi(lambda *_: None), SETTINGS).controller
    assert [controller.find_key(item) for item in (own, child, stranger)] == [("demo", "movies")] * 2 + [None]

"""The operator's own series, under the names of `finetune_api.metrics`.

Recording never fails and never decides. Counters of a namespace start at 0 when it is first seen, because Prometheus'
`increase()` ignores a series that appears with value 1. Gauges per job are computed at the scrape from a small table,
so that a deleted job leaves nothing behind.
"""

import os

os.environ["PROMETHEUS_DISABLE_CREATED_SERIES"] = "True"  # read by prometheus_client at import

import platform
from collections import Counter as Tally
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric

from finetune_api import metrics as series
from finetune_api.kinds.finetunejob.spec import MethodKind
from finetune_api.kinds.finetunejob.status import Milestone, Phase, Reason
from finetune_api.metrics import Series

ATTEMPT_ENDS = ("disruption", "error", "oom", "preempted")


@dataclass(frozen=True, slots=True)
class JobFacts:
    """What the gauges tell about one FineTuneJob."""

    namespace: str
    name: str
    phase: Phase
    method: str
    queue: str
    percent: int
    pending_since: datetime | None

    @property
    def is_active(self) -> bool:
        return self.phase not in (Phase.SUCCEEDED, Phase.FAILED)


class Metrics:
    """All series of one operator process.

    Args:
        clock: the present time, for ages.
    """

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self.registry = CollectorRegistry()
        self._clock = clock
        self._active: dict[tuple[str, str], JobFacts] = {}
        self._finished: dict[tuple[str, str], Phase] = {}
        self._namespaces: set[str] = set()
        self.reconciles = self._counter(series.OPERATOR_RECONCILE_TOTAL)
        self.reconcile_duration = self._histogram(series.OPERATOR_RECONCILE_DURATION)
        self.queue_depth = self._gauge(series.OPERATOR_QUEUE_DEPTH)
        self.last_watch_event = self._gauge(series.OPERATOR_LAST_WATCH_EVENT)
        self.resync_drift = self._counter(series.OPERATOR_RESYNC_DRIFT_TOTAL)
        self.api_requests = self._counter(series.OPERATOR_API_REQUESTS_TOTAL)
        self.api_duration = self._histogram(series.OPERATOR_API_REQUEST_DURATION)
        self.loop_lag = self._gauge(series.OPERATOR_EVENT_LOOP_LAG)
        self.jobs_created = self._counter(series.JOBS_CREATED_TOTAL)
        self.jobs_finished = self._counter(series.JOBS_FINISHED_TOTAL)
        self.attempt_ends = self._counter(series.JOB_ATTEMPTS_TOTAL)
        self.job_duration = self._histogram(series.JOB_DURATION)
        build = self._gauge(series.OPERATOR_BUILD_INFO)
        build.labels(metadata.version("finetune-operator"), platform.python_version(), metadata.version("kopf")).set(1)
        for result in ("success", "error", "requeue"):
            self.reconciles.labels(result)
        for kind in ("missed_update", "orphan"):
            self.resync_drift.labels(kind)
        self.registry.register(_JobCollector(self))

    def record_namespace(self, namespace: str) -> None:
        """Start the counters of a namespace at 0."""
        if namespace in self._namespaces:
            return
        self._namespaces.add(namespace)
        for method in MethodKind:
            self.jobs_created.labels(namespace, method.value)
        for outcome in (Milestone.COMPLETED, Milestone.EARLY_STOPPED):
            self.jobs_finished.labels(namespace, "succeeded", outcome.value)
        for reason in Reason:
            self.jobs_finished.labels(namespace, "failed", reason.value)
        for end in ATTEMPT_ENDS:
            self.attempt_ends.labels(namespace, end)

    def record_job(self, facts: JobFacts) -> None:
        """Keep the gauges of a FineTuneJob up to date."""
        key = (facts.namespace, facts.name)
        if not facts.is_active:
            self.record_finished(key, facts.phase)
            return
        self.record_namespace(facts.namespace)
        self._finished.pop(key, None)
        self._active[key] = facts

    def record_finished(self, key: tuple[str, str], phase: Phase) -> None:
        """Count a FineTuneJob, by namespace and name, as finished; nothing more is kept of it."""
        self.record_namespace(key[0])
        self._active.pop(key, None)
        self._finished[key] = phase

    def forget_job(self, namespace: str, name: str) -> None:
        """Drop the gauges of a FineTuneJob that is gone."""
        self._active.pop((namespace, name), None)
        self._finished.pop((namespace, name), None)

    def list_jobs(self) -> set[tuple[str, str]]:
        """Return namespace and name of the FineTuneJobs there are gauges for."""
        return {*self._active, *self._finished}

    def build_exposition(self) -> bytes:
        """Write all series in Prometheus' text format."""
        return generate_latest(self.registry)

    def collect_jobs(self) -> Iterator[Metric]:
        """Compute the gauges about FineTuneJobs."""
        jobs, info, progress, oldest = (
            GaugeMetricFamily(item.name, item.help, labels=item.labels)
            for item in (series.JOBS, series.JOB_INFO, series.JOB_PROGRESS, series.JOB_OLDEST_PENDING_AGE)
        )
        tally = Tally((facts.namespace, facts.phase) for facts in self._active.values())
        tally.update((key[0], phase) for key, phase in self._finished.items())
        now = self._clock()
        ages = dict.fromkeys(sorted(self._namespaces), 0.0)
        for namespace in sorted(self._namespaces):
            for phase in Phase:
                jobs.add_metric([namespace, phase.value], tally[(namespace, phase)])
        for facts in self._active.values():
            info.add_metric([facts.namespace, facts.name, facts.method, facts.queue], 1)
            progress.add_metric([facts.namespace, facts.name], facts.percent / 100)
            if facts.pending_since is not None:
                age = max(0.0, (now - facts.pending_since).total_seconds())
                ages[facts.namespace] = max(ages[facts.namespace], age)
        for namespace, age in ages.items():
            oldest.add_metric([namespace], age)
        yield from (jobs, info, progress, oldest)

    def _counter(self, item: Series) -> Counter:
        return Counter(item.name, item.help, item.labels, registry=self.registry)

    def _gauge(self, item: Series) -> Gauge:
        return Gauge(item.name, item.help, item.labels, registry=self.registry)

    def _histogram(self, item: Series) -> Histogram:
        return Histogram(item.name, item.help, item.labels, registry=self.registry, buckets=item.buckets)


class _JobCollector:
    def __init__(self, owner: Metrics) -> None:
        self._owner = owner

    def collect(self) -> Iterator[Any]:
        return self._owner.collect_jobs()

"""The series about FineTuneJobs, under the names of `finetune_api.metrics`.

Recording never fails and never decides. Counters of a namespace start at 0 when it is first seen, because Prometheus'
`increase()` ignores a series that appears with value 1. Gauges per job are computed at the scrape from a small table,
so that a deleted job leaves nothing behind.
"""

from collections import Counter as Tally
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from prometheus_client.core import GaugeMetricFamily, Metric

from finetune_api import metrics as series
from finetune_api.kinds import status_fields
from finetune_api.kinds.finetunejob.spec import MethodKind
from finetune_api.kinds.finetunejob.status import FineTuneJobStatus, Milestone, Phase, Reason
from finetune_operator.runtime.kind import Key
from finetune_operator.runtime.metrics import Metrics

FORGET_AFTER = timedelta(hours=1)
"""Longer than anybody scrapes apart (a choice): the last counts of a namespace must be seen."""
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


class JobMetrics:
    """The series about FineTuneJobs of one operator process.

    Args:
        metrics: of the process; these are registered beside them.
        clock: the present time, for ages.
    """

    def __init__(self, metrics: Metrics, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._active: dict[Key, JobFacts] = {}
        self._finished: dict[Key, Phase] = {}
        self._namespaces: dict[str, datetime] = {}
        # Collected in the order of registration: what it drops must not be served once more.
        metrics.registry.register(_JobCollector(self))
        self.jobs_created = metrics.build_counter(series.JOBS_CREATED_TOTAL)
        self.jobs_finished = metrics.build_counter(series.JOBS_FINISHED_TOTAL)
        self.attempt_ends = metrics.build_counter(series.JOB_ATTEMPTS_TOTAL)
        self.lost_seconds = metrics.build_counter(series.JOB_LOST_STEP_SECONDS_TOTAL)
        self.job_duration = metrics.build_histogram(series.JOB_DURATION)

    def record_namespace(self, namespace: str) -> None:
        """Start the counters of a namespace at 0."""
        is_known = namespace in self._namespaces
        self._namespaces[namespace] = self._clock()
        if is_known:
            return
        for method in MethodKind:
            self.jobs_created.labels(namespace, method.value)
        for outcome in (Milestone.COMPLETED, Milestone.EARLY_STOPPED):
            self.jobs_finished.labels(namespace, "succeeded", outcome.value)
        for reason in Reason:
            self.jobs_finished.labels(namespace, "failed", reason.value)
        self.lost_seconds.labels(namespace)
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

    def record_finished(self, key: Key, phase: Phase) -> None:
        """Count a FineTuneJob, by namespace and name, as finished; nothing more is kept of it."""
        self.record_namespace(key[0])
        self._active.pop(key, None)
        self._finished[key] = phase

    def record_finish(self, namespace: str, new: FineTuneJobStatus) -> None:
        """Count a run that has just finished."""
        result = "succeeded" if new.phase is Phase.SUCCEEDED else "failed"
        condition = next((item for item in new.conditions if item.type.lower() == result), None)
        self.jobs_finished.labels(namespace, result, condition.reason if condition else "").inc()
        if new.start_time is not None and new.completion_time is not None:
            seconds = (
                status_fields.parse_time(new.completion_time) - status_fields.parse_time(new.start_time)
            ).total_seconds()
            self.job_duration.labels(namespace, result).observe(max(0.0, seconds))

    def forget_job(self, key: Key) -> None:
        """Drop the gauges of a FineTuneJob that is gone."""
        self._active.pop(key, None)
        self._finished.pop(key, None)

    def list_jobs(self) -> set[Key]:
        """Return namespace and name of the FineTuneJobs there are gauges for."""
        return {*self._active, *self._finished}

    def _drop_namespaces(self) -> None:
        """Drop the series of namespaces that have had no FineTuneJob for long: they may be gone."""
        used = {namespace for namespace, _ in self.list_jobs()}
        now = self._clock()
        for namespace, seen in list(self._namespaces.items()):
            if namespace in used:
                self._namespaces[namespace] = now
            elif now - seen > FORGET_AFTER:
                del self._namespaces[namespace]
                counters = (self.jobs_created, self.jobs_finished, self.attempt_ends, self.lost_seconds)
                for series_of in (*counters, self.job_duration):
                    series_of.remove_by_labels({"namespace": namespace})

    def collect_jobs(self) -> Iterator[Metric]:
        """Compute the gauges about FineTuneJobs."""
        self._drop_namespaces()
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


class _JobCollector:
    def __init__(self, owner: JobMetrics) -> None:
        self._owner = owner

    def collect(self) -> Iterator[Any]:
        return self._owner.collect_jobs()

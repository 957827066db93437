"""The queue between what happened and what is decided: keys in, one reconcile per key at a time.

Keys coalesce, a key is never worked on twice at once, failures are retried with jittered back-off, and no key comes
back sooner than a second: neither a skewed clock nor a broken object can make a hot loop. Events are only hints; the
resync compares everything with the API server and so bounds how long a lost one can matter.
"""

import asyncio
import heapq
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import httpx2

from finetune_api import group, status
from finetune_api.status import Phase
from finetune_operator import observe, reconcile
from finetune_operator.cluster import Cluster, Conflict
from finetune_operator.health import Health
from finetune_operator.metrics import JobFacts, Metrics
from finetune_operator.observe import FineTuneJob
from finetune_operator.plan import Plan
from finetune_operator.settings import Settings

Key = tuple[str, str]

MIN_PAUSE_SECONDS = 1.0
MAX_BACKOFF_SECONDS = 300.0
RESOURCES = (group.PLURAL, "jobs", "pods")

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class KeyQueue:
    """Keys that wait for their time.

    A key asked for while it is worked on waits until that is done; asked for twice it is due at the earlier time.

    Args:
        clock: monotonic seconds.
    """

    clock: Callable[[], float] = time.monotonic
    _due: dict[Key, float] = field(default_factory=dict)
    _heap: list[tuple[float, Key]] = field(default_factory=list)
    _active: set[Key] = field(default_factory=set)
    _earliest: dict[Key, float] = field(default_factory=dict)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def __len__(self) -> int:
        return len(self._due)

    def add(self, key: Key, delay_seconds: float = 0.0) -> None:
        """Ask for a key, at once or later."""
        due = max(self.clock() + delay_seconds, self._earliest.get(key, 0.0))
        if due < self._due.get(key, float("inf")):
            self._due[key] = due
            heapq.heappush(self._heap, (due, key))
            self._changed.set()

    def pop(self) -> tuple[Key | None, float | None]:
        """Take the key that is due, or return how long until the next one is; (None, None): nothing waits."""
        held: list[tuple[float, Key]] = []
        found: Key | None = None
        wait: float | None = None
        while self._heap:
            due, key = self._heap[0]
            if self._due.get(key) != due:
                heapq.heappop(self._heap)
            elif due > self.clock():
                wait = due - self.clock()
                break
            elif key in self._active:
                held.append(heapq.heappop(self._heap))
            else:
                heapq.heappop(self._heap)
                del self._due[key]
                self._active.add(key)
                found = key
                break
        for item in held:
            heapq.heappush(self._heap, item)
        return found, wait

    def finish(self, key: Key) -> None:
        """Give a key back; it isn't due again for a second."""
        self._active.discard(key)
        now = self.clock()
        self._earliest = {item: moment for item, moment in self._earliest.items() if moment > now}
        self._earliest[key] = now + MIN_PAUSE_SECONDS
        if key in self._due and self._due[key] < self._earliest[key]:
            del self._due[key]
            self.add(key)
        self._changed.set()

    async def take(self) -> Key:
        """Wait for the next key that is due."""
        while True:
            self._changed.clear()
            key, wait = self.pop()
            if key is not None:
                return key
            try:
                await asyncio.wait_for(self._changed.wait(), wait)
            except TimeoutError:
                continue


class Worker:
    """Reconciles FineTuneJobs by key, and resyncs."""

    def __init__(self, cluster: Cluster, settings: Settings, metrics: Metrics, health: Health) -> None:
        self._cluster = cluster
        self._settings = settings
        self._metrics = metrics
        self._health = health
        self._queue = KeyQueue()
        self._failures: dict[Key, int] = {}
        self._resynced: set[Key] = set()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Check what the API server grants, then work until `stop`.

        Raises:
            ClusterError: the CRD or a rule is missing.
        """
        await self._cluster.check_access(self._settings.watched_namespaces)
        loops = [self._work() for _ in range(self._settings.workers)]
        self._tasks = [
            asyncio.create_task(loop) for loop in (*loops, self._resync_forever(), self._health.watch_loop())
        ]

    async def stop(self) -> None:
        """Cancel the tasks; whatever they were at is taken up again after the next start."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def enqueue(self, resource: str, key: Key) -> None:
        """Note that something about this FineTuneJob changed."""
        self._health.record_watch_event(resource)
        self._resynced.discard(key)
        self._queue.add(key)
        self._metrics.queue_depth.set(len(self._queue))

    async def _work(self) -> None:
        while True:
            key = await self._queue.take()
            self._metrics.queue_depth.set(len(self._queue))
            try:
                with self._metrics.reconcile_duration.time():
                    delay = await self._reconcile(key)
            except Conflict:
                self._record(key, "requeue", MIN_PAUSE_SECONDS)
            except Exception as error:  # any failure of one object must leave the others alone
                failures = self._failures[key] = self._failures.get(key, 0) + 1
                wait = compute_retry_seconds(failures, random.random())  # noqa: S311 - jitter, no secret
                is_known = isinstance(error, httpx2.HTTPError)
                extra = {"namespace": key[0], "job": key[1]}
                text = f"{type(error).__name__}: {error}"
                logger.warning(
                    "reconcile failed, next try in %.0f s: %s", wait, text, extra=extra, exc_info=not is_known
                )
                self._record(key, "error", wait)
            else:
                self._failures.pop(key, None)
                self._record(key, "success" if delay is None else "requeue", delay)

    def _record(self, key: Key, result: str, delay_seconds: float | None) -> None:
        self._metrics.reconciles.labels(result).inc()
        self._queue.finish(key)
        if delay_seconds is not None:
            self._queue.add(key, max(MIN_PAUSE_SECONDS, delay_seconds))

    async def _reconcile(self, key: Key) -> float | None:
        """Look at one FineTuneJob; return after how many seconds it must be looked at again."""
        now = datetime.now(UTC)
        snapshot = await self._cluster.fetch_snapshot(*key, now)
        if snapshot is None:
            self._metrics.forget_job(*key)
            return None
        plan = reconcile.plan_job(snapshot.job, snapshot.observed, now, self._settings)
        is_changed = await self._cluster.apply_plan(snapshot.job, plan)
        if is_changed and key in self._resynced:
            self._metrics.resync_drift.labels("missed_update").inc()
        self._resynced.discard(key)
        self._record_plan(snapshot.job, plan)
        return plan.requeue_after

    def _record_plan(self, job: FineTuneJob, plan: Plan) -> None:
        """Log and count what a plan decided, once it was applied."""
        new, method = plan.status, str((job.spec.get("method") or {}).get("kind", ""))
        for event in plan.events:
            extra = {"namespace": job.namespace, "job": job.name, "uid": job.uid, "reason": event.reason}
            logger.log(logging.WARNING if event.is_warning else logging.INFO, "%s", event.message, extra=extra)
        self._metrics.record_namespace(job.namespace)
        if job.status.observed_generation < 0:
            self._metrics.jobs_created.labels(job.namespace, method).inc()
        for end in plan.attempt_ends:
            self._metrics.attempt_ends.labels(job.namespace, end).inc()
        if new.completion_time is not None and job.status.completion_time is None:
            self._record_finish(job, plan)
        self._metrics.record_job(
            JobFacts(
                namespace=job.namespace,
                name=job.name,
                phase=new.phase or Phase.PENDING,
                method=method,
                queue=str((job.spec.get("placement") or {}).get("queueName", "")),
                percent=new.progress.percent if new.progress is not None else 0,
                pending_since=status.parse_time(new.pending_since) if new.pending_since else None,
            )
        )

    def _record_finish(self, job: FineTuneJob, plan: Plan) -> None:
        new = plan.status
        result = "succeeded" if new.phase is Phase.SUCCEEDED else "failed"
        condition = next((item for item in new.conditions if item.type.lower() == result), None)
        self._metrics.jobs_finished.labels(job.namespace, result, condition.reason if condition else "").inc()
        if new.start_time is not None and new.completion_time is not None:
            seconds = (status.parse_time(new.completion_time) - status.parse_time(new.start_time)).total_seconds()
            self._metrics.job_duration.labels(job.namespace, result).observe(max(0.0, seconds))

    async def _resync_forever(self) -> None:
        while True:
            try:
                await self._resync()
            except Exception as error:  # the next resync must come whatever ended this one
                is_known = isinstance(error, httpx2.HTTPError)
                logger.warning("resync failed: %s: %s", type(error).__name__, error, exc_info=not is_known)
            await asyncio.sleep(self._settings.resync_seconds)

    async def _resync(self) -> None:
        """Compare all FineTuneJobs and child Jobs with what the watches said."""
        is_first = not self._health.is_ready
        # Children first: a parent that is created between the two lists must not make its child look like an orphan.
        children = await self._cluster.list_children(self._settings.watched_namespaces)
        jobs = await self._cluster.list_jobs(self._settings.watched_namespaces)
        uids = {job["metadata"]["uid"] for job in jobs}
        orphans = 0
        for child in children:
            if child["metadata"]["labels"][group.LABEL_UID] not in uids and await self._cluster.delete_orphan(child):
                orphans += 1
                self._metrics.resync_drift.labels("orphan").inc()
                logger.warning("deleted Job %s, whose FineTuneJob is gone", child["metadata"]["name"])
        for job in jobs:
            key = (job["metadata"]["namespace"], job["metadata"]["name"])
            self._resynced |= set() if is_first else {key}
            self._queue.add(key)
        self._metrics.queue_depth.set(len(self._queue))
        self._health.record_resync(RESOURCES, has_drift=orphans > 0)


def compute_retry_seconds(failures: int, share: float) -> float:
    """Return the wait after that many failures in a row: 1 s doubled up to 5 min, of which at most half is random.

    Args:
        failures: at least 1.
        share: from 0 to 1, at random.
    """
    seconds: float = min(MAX_BACKOFF_SECONDS, MIN_PAUSE_SECONDS * 2 ** min(failures, 10))
    return seconds * (0.5 + share / 2)


def find_key(manifest: observe.Manifest) -> Key | None:
    """Return the FineTuneJob an object is about: itself, or the parent its labels name."""
    if manifest.get("kind") == group.KIND:
        return (manifest["metadata"]["namespace"], manifest["metadata"]["name"])
    return observe.find_parent_key(manifest)

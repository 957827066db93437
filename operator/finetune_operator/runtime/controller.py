"""Between what happened and what is decided: keys in, one reconcile per key at a time, and the resync.

Failures are retried with jittered back-off. Events are only hints; the resync compares everything with the API server
and so bounds how long a lost one can matter. Finished runs cost it one line of a list, not a request.
"""

import asyncio
import contextlib
import logging
import random
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

import httpx2

from finetune_api import group
from finetune_api.kinds.finetunejob import status
from finetune_api.kinds.finetunejob.status import ConditionType, FineTuneJobStatus, Phase
from finetune_operator.jobs import observe, reconcile
from finetune_operator.jobs.observe import ChildJob, ChildPod, FineTuneJob, Observed, Summary
from finetune_operator.runtime import workqueue as key_queue
from finetune_operator.runtime.client import ALL_NAMESPACES, Cluster, ClusterError, Conflict, Snapshot
from finetune_operator.runtime.health import Health
from finetune_operator.runtime.metrics import JobFacts, Metrics
from finetune_operator.runtime.plan import Plan
from finetune_operator.runtime.workqueue import MIN_PAUSE_SECONDS, Key, KeyQueue
from finetune_operator.settings import Settings

RESOURCES = (group.PLURAL, "jobs", "pods")
NEWCOMER_LEAD_SECONDS = 30.0
"""A new FineTuneJob goes before whatever has waited for less (a choice): its user waits for a Job, while a look at one
that has its Job changes a status."""

logger = logging.getLogger(__name__)


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
        self._settled: set[Key] = set()
        self._written: dict[Key, str] = {}
        self._newcomers: dict[Key, observe.Manifest] = {}
        self._relisted = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> bool:
        """Check what the API server grants, then work until `stop`.

        Returns:
            Whether watches may leave finished FineTuneJobs out: the resync looks after those.

        Raises:
            ClusterError: the CRD is missing, or a rule in every watched namespace.
        """
        await self._cluster.check_access(self._settings.watched_namespaces)
        can_select = await self._cluster.can_select_unfinished(self._settings.watched_namespaces)
        loops = [self._work() for _ in range(self._settings.workers)]
        self._tasks = [
            asyncio.create_task(loop) for loop in (*loops, self._resync_forever(), self._health.watch_loop())
        ]
        return can_select

    async def stop(self) -> None:
        """Cancel the tasks; whatever they were at is taken up again after the next start."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._cluster.close()

    def enqueue(self, resource: str, event_type: str | None, body: observe.Manifest) -> None:
        """Note that something changed that concerns a FineTuneJob."""
        self._health.record_watch_event(resource)
        key = find_key(body)
        if event_type is None:
            # A (re)listed object may be old news: one resync compares them all with fewer requests than each alone.
            self._relisted.set()
            return
        if resource == group.PLURAL:
            self._note_settled(key, is_settled(body) and event_type != "DELETED")
            if key is not None and self._written.get(key) == body["metadata"]["resourceVersion"]:
                # The echo of our own last write: it was decided on all that it says.
                return
        if key is None or key in self._settled:
            return
        self._resynced.discard(key)
        is_new = resource == group.PLURAL and event_type == "ADDED"
        if is_new:
            self._newcomers[key] = dict(body)
        elif resource == group.PLURAL:
            self._newcomers.pop(key, None)
        self._queue.add(key, -NEWCOMER_LEAD_SECONDS if is_new else 0.0)
        self._metrics.queue_depth.set(len(self._queue))

    def _note_settled(self, key: Key | None, is_settled_now: bool) -> None:
        if key is not None:
            (self._settled.add if is_settled_now else self._settled.discard)(key)

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
                wait = key_queue.compute_retry_seconds(failures, random.random())  # noqa: S311 - jitter, no secret
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
        # The read of a new FineTuneJob would repeat what its event has just said. Were that old news, the write of the
        # status, which carries its resourceVersion, would be refused before anything is made.
        snapshot = self._take_newcomer(key) or await self._cluster.fetch_snapshot(*key, now)
        if snapshot is None:
            self._metrics.forget_job(*key)
            self._settled.discard(key)
            self._written.pop(key, None)
            return None
        plan = reconcile.plan_job(snapshot.job, snapshot.observed, now, self._settings)
        stored = await self._cluster.apply_status(snapshot.job, plan)
        self._written[key] = stored.resource_version
        # Counted before the actions: a later pass doesn't see this transition any more.
        self._record_plan(snapshot.job, plan)
        is_resynced = key in self._resynced
        self._resynced.discard(key)
        await self._cluster.apply_actions(stored, plan, now)
        if plan.status.phase in observe.FINAL_PHASES and plan.status.observed_generation == stored.generation:
            self._settled.add(key)
            self._written.pop(key, None)
        # Not so where an action was refused: it is tried again at every resync, and nothing was missed.
        if is_resynced and (stored is not snapshot.job or plan.actions):
            self._metrics.resync_drift.labels("missed_update").inc()
        return plan.requeue_after

    def _take_newcomer(self, key: Key) -> Snapshot | None:
        body = self._newcomers.pop(key, None)
        job = None if body is None else observe.observe_job(body)
        # With a status the write might change nothing, and so prove nothing.
        return None if job is None or job.status.observed_generation >= 0 else Snapshot(job, Observed())

    def _record_plan(self, job: FineTuneJob, plan: Plan) -> None:
        """Log and count what a plan decided, once its status was written."""
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
        self._record_job(job, new)

    def _record_job(self, job: FineTuneJob, new: FineTuneJobStatus) -> None:
        self._metrics.record_job(
            JobFacts(
                namespace=job.namespace,
                name=job.name,
                phase=new.phase or Phase.PENDING,
                method=str((job.spec.get("method") or {}).get("kind", "")),
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
                is_known = isinstance(error, (httpx2.HTTPError, ClusterError))
                logger.warning("resync failed: %s: %s", type(error).__name__, error, exc_info=not is_known)
            await asyncio.sleep(MIN_PAUSE_SECONDS)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._relisted.wait(), self._settings.resync_seconds)

    async def _resync(self) -> None:
        """Compare all FineTuneJobs and child Jobs with what the watches said; one namespace doesn't cost the others.

        Raises:
            ClusterError: not one of the namespaces could be read.
        """
        is_first = not self._health.is_ready
        self._relisted.clear()
        has_drift, has_any = False, False
        for namespace in self._settings.watched_namespaces or (ALL_NAMESPACES,):
            try:
                has_drift |= await self._resync_namespace(namespace, is_first=is_first)
                has_any = True
            except httpx2.HTTPError as error:
                self._metrics.reconciles.labels("error").inc()
                extra = {"namespace": namespace}
                logger.warning("resync of this namespace failed: %s: %s", type(error).__name__, error, extra=extra)
        self._metrics.queue_depth.set(len(self._queue))
        if not has_any:
            raise ClusterError("no namespace could be read")
        self._health.record_resync(RESOURCES, has_drift=has_drift)

    async def _resync_namespace(self, namespace: str, *, is_first: bool) -> bool:
        """Compare one namespace, or all; tell whether there were orphans."""
        # Children first: a parent that is made between the lists must not make its child look like an orphan.
        children = await self._list_children(namespace)
        gone = {key for key in self._metrics.list_jobs() if namespace in (ALL_NAMESPACES, key[0])}
        async for summary in self._cluster.iterate_jobs(namespace):
            key = (sys.intern(summary.metadata.namespace), summary.metadata.name)
            gone.discard(key)
            self._compare(key, summary, children.pop((key, summary.metadata.uid), Observed()), is_first=is_first)
        for key in gone:
            self._queue.add(key)
        return any([await self._remove_orphans(*owner, found.jobs) for owner, found in children.items()])

    async def _list_children(self, namespace: str) -> dict[tuple[Key, str], Observed]:
        """Read the child Jobs and live pods of a namespace, or of all, by the FineTuneJob and uid their labels name."""
        # Each is frozen as it comes: until their TTL the Jobs of finished runs are many, and their manifests large.
        jobs: dict[tuple[Key, str], list[ChildJob]] = {}
        pods: dict[tuple[Key, str], list[ChildPod]] = {}
        async for manifest in self._cluster.iterate_children(namespace):
            if (owner := _find_owner(manifest)) is not None:
                jobs.setdefault(owner, []).extend(observe.observe_children(owner[1], [manifest], ()).jobs)
        async for manifest in self._cluster.iterate_live_pods(namespace):
            if (owner := _find_owner(manifest)) is not None:
                pods.setdefault(owner, []).extend(observe.observe_children(owner[1], (), [manifest]).pods)
        return {owner: Observed(tuple(jobs.get(owner, ())), tuple(pods.get(owner, ()))) for owner in {*jobs, *pods}}

    def _compare(self, key: Key, summary: Summary, observed: Observed, *, is_first: bool) -> None:
        """Ask for a FineTuneJob unless the lists show that its status says all and nothing is to be done."""
        final_phase = summary.find_final_phase()
        if final_phase is not None and not observed.jobs:
            self._metrics.record_finished(key, final_phase)
            self._settled.add(key)
            return
        try:
            job = observe.observe_job(summary.read_manifest())
        except ValueError:
            # Whoever works on the key says what is wrong with it; the others must be compared all the same.
            self._queue.add(key)
            return
        plan = reconcile.plan_job(job, observed, datetime.now(UTC), self._settings)
        if plan.status == job.status and not plan.actions:
            self._record_job(job, job.status)
            if final_phase is not None:
                self._settled.add(key)
            if plan.requeue_after is not None:
                self._queue.add(key, plan.requeue_after)
            return
        # The watch leaves finished runs out: what changes about one is noticed here alone, and so was not missed.
        if not is_first and not status.is_true(job.status.conditions, ConditionType.FINISHED):
            self._resynced.add(key)
        self._queue.add(key)

    async def _remove_orphans(self, key: Key, uid: str, children: Sequence[ChildJob]) -> bool:
        """Delete child Jobs whose FineTuneJob was in no list; tell whether there were any."""
        found = False
        for child in children:
            extra = {"namespace": key[0], "child": child.name}
            try:
                is_orphan = await self._cluster.delete_orphan(*key, uid, child)
            except httpx2.HTTPError as error:
                self._metrics.reconciles.labels("error").inc()
                logger.warning("Job %s, whose FineTuneJob is gone, stays: %s", child.name, error, extra=extra)
                continue
            if is_orphan:
                found = True
                self._metrics.resync_drift.labels("orphan").inc()
                logger.warning("deleted Job %s, whose FineTuneJob is gone", child.name, extra=extra)
        return found


def find_key(manifest: observe.Manifest) -> Key | None:
    """Return the FineTuneJob an object is about: itself, or the parent its labels name."""
    if manifest.get("kind") == group.KIND:
        return (manifest["metadata"]["namespace"], manifest["metadata"]["name"])
    return observe.find_parent_key(manifest)


def _find_owner(manifest: observe.Manifest) -> tuple[Key, str] | None:
    """Return the FineTuneJob and uid that a child's labels name, if they do."""
    key = observe.find_parent_key(manifest)
    return (key, manifest["metadata"]["labels"][group.LABEL_UID]) if key is not None else None


def is_settled(manifest: observe.Manifest) -> bool:
    """Tell whether a FineTuneJob has finished and its newest generation was seen: nothing more is to be done."""
    stored = manifest.get("status") or {}
    is_finished = stored.get("phase") in observe.FINAL_PHASES
    return is_finished and stored.get("observedGeneration") == manifest["metadata"].get("generation")

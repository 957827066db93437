"""From what happened to what is done: events in, one reconcile per key at a time.

Events are only hints. Every pass reads what it decides on from the API server, writes the status with the
resourceVersion it was computed from, acts, and records Events; whoever else wrote meanwhile wins, and the next pass
decides anew. Failures are retried with jittered back-off. The controller keeps one record per object and nothing that a
restart would miss.
"""

import asyncio
import logging
import random
from collections.abc import Coroutine, Mapping
from datetime import UTC, datetime
from typing import Any

from finetune_operator.runtime import events, live_state, plan_executor, records, workqueue
from finetune_operator.runtime.api_client import Client, ClientError
from finetune_operator.runtime.health import Health
from finetune_operator.runtime.index import Index
from finetune_operator.runtime.kind import Children, Key, Kind
from finetune_operator.runtime.metrics import Metrics
from finetune_operator.runtime.plan import Manifest, Plan
from finetune_operator.runtime.plan_executor import ConflictError
from finetune_operator.runtime.pod_poller import PodPoller
from finetune_operator.runtime.records import Record
from finetune_operator.runtime.workqueue import MIN_PAUSE_SECONDS, KeyQueue

NEW_OBJECT_LEAD_SECONDS = 30.0
"""A new object goes before whatever has waited for less (a choice): its user waits for a Job, while a look at one that
has its Job changes a status."""
GENERAL_SHARE = 0.25
"""So many of the workers take whatever is due, the others new objects alone. Measured with 20 new ones a second on a
busy machine: looks at those that have their Jobs coalesce while they wait, and 12 requests for each become 7."""

logger = logging.getLogger(__name__)


class Controller:
    """Reconciles the objects of one kind."""

    def __init__(self, kind: Kind, client: Client, metrics: Metrics, health: Health, poller: PodPoller) -> None:
        self.kind = kind
        self._client = client
        self._metrics = metrics
        self._health = health
        self.poller = poller
        self._index = Index()
        self.queue = KeyQueue()
        self.records: dict[Key, Record] = {}
        self.relisted = asyncio.Event()

    # Events.

    def enqueue(self, plural: str, event_type: str | None, manifest: Mapping[str, Any]) -> None:
        """Note that something changed that concerns an object."""
        self._health.record_watch_event(plural)
        if event_type is None:
            # A (re)listed object may be old news: one resync compares them all with fewer requests than each alone.
            self.relisted.set()
            return
        key = self.find_key(manifest)
        if key is None:
            return
        is_own = plural == self.kind.resource.plural
        record = self.records.setdefault(key, Record())
        if is_own:
            self.index(manifest)
            record.is_finished = event_type != "DELETED" and self.kind.is_finished(dict(manifest))
            version = manifest["metadata"]["resourceVersion"]
            if record.written_version == version:
                return
            if event_type == "MODIFIED" and self.queue.is_active(key):
                # Perhaps the echo of what this pass writes, faster than the answer to it: told once the pass is over.
                record.heard_version = version
                return
        if record.is_finished:
            return
        record.is_from_resync = False
        is_new = is_own and event_type == "ADDED"
        if is_own:
            record.added = dict(manifest) if is_new else None
        self.queue.add(key, -NEW_OBJECT_LEAD_SECONDS if is_new else 0.0)
        self._metrics.queue_depth.set(len(self.queue))

    def find_key(self, manifest: Mapping[str, Any]) -> Key | None:
        """Return the object a manifest is about: itself, or the owner its labels name."""
        metadata = manifest["metadata"]
        if manifest.get("kind") == self.kind.resource.kind:
            return (metadata["namespace"], metadata["name"])
        name = (metadata.get("labels") or {}).get(self.kind.owner_label)
        return (metadata["namespace"], name) if name else None

    def index(self, manifest: Mapping[str, Any]) -> None:
        """Note what an object shares with others."""
        metadata = manifest["metadata"]
        self._index.put((metadata["namespace"], metadata["name"]), self.kind.build_index_value(dict(manifest)))

    def forget(self, key: Key) -> None:
        """Drop everything about an object that is gone."""
        self.kind.record_gone(key)
        self.poller.forget(key)
        self.records.pop(key, None)
        self._index.remove(key)

    # Passes.

    def build_loops(self, workers: int) -> list[Coroutine[None, None, None]]:
        """Return the loops of that many workers."""
        num_general = max(1, round(workers * GENERAL_SHARE))
        return [self.work(only_new=number >= num_general) for number in range(workers)]

    async def work(self, *, only_new: bool = False) -> None:
        """Take keys and reconcile them, for ever.

        Args:
            only_new: only those of new objects.
        """
        while True:
            key = await self.queue.take(only_urgent=only_new)
            self._metrics.queue_depth.set(len(self.queue))
            record = self.records.setdefault(key, Record())
            try:
                with self._metrics.reconcile_duration.time():
                    delay = await self.reconcile(key)
            except ConflictError:
                self._finish(key, "requeue", MIN_PAUSE_SECONDS)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                # Only a task of a library below was cancelled: kopf, when it ends, cancels what it doesn't know.
                self._finish(key, "error", MIN_PAUSE_SECONDS)
            except Exception as error:  # any failure of one object must leave the others alone
                self._finish(key, "error", self._log_failure(key, record, error))
            else:
                record.failures = 0
                self._finish(key, "success" if delay is None else "requeue", delay)

    async def reconcile(self, key: Key) -> float | None:
        """Look at one object; return after how many seconds it must be looked at again.

        Raises:
            ConflictError: it changed since it was read; nothing was done.
            ClientError: the API server gave no answer, or refused something.
        """
        now = datetime.now(UTC)
        record = self.records.setdefault(key, Record())
        manifest = await live_state.read_object(self._client, self.kind, key, record)
        if manifest is None:
            self.forget(key)
            return None
        around = Children(peers=self._index.list_peers(key), answer=self.poller.get_answer(key))
        children = await live_state.read_children(self._client, self.kind, manifest, record, around=around, now=now)
        plan = self.kind.reconcile(manifest, children, now)
        stored = await plan_executor.write_status(self._client, self.kind.resource, manifest, plan)
        record.written_version = stored["metadata"]["resourceVersion"]
        # Until all is done: a resync asks again where an action fails.
        record.seen = frozenset()
        # Counted before the actions: a later pass doesn't see this transition any more.
        self._log_plan(manifest, plan)
        self.kind.record_plan(manifest, plan)
        is_missed, record.is_from_resync = record.is_from_resync, False
        record.is_finished = self.kind.is_finished(stored)
        self.poller.follow(key, plan.endpoint)
        # Not so where an action was refused: it is tried again at every resync, and nothing was missed.
        try:
            for action in plan.actions:
                await plan_executor.act(self._client, key[0], action, record)
        finally:
            await events.record(self._client, self.kind.resource, stored, plan.events)
        record.seen = records.build_versions(stored, children)
        if is_missed and (plan.status_patch or plan.actions):
            self._metrics.resync_drift.labels("missed_update").inc()
        return plan.requeue_after

    def _finish(self, key: Key, result: str, delay_seconds: float | None) -> None:
        self._metrics.reconciles.labels(result).inc()
        self.queue.finish(key)
        record = self.records.get(key)
        if record is not None:
            heard, record.heard_version = record.heard_version, ""
            delay_seconds = delay_seconds if heard in ("", record.written_version) else MIN_PAUSE_SECONDS
        if delay_seconds is not None:
            self.queue.add(key, max(MIN_PAUSE_SECONDS, delay_seconds))

    def _log_failure(self, key: Key, record: Record, error: Exception) -> float:
        """Log why a pass failed; return after how many seconds it is repeated."""
        record.failures += 1
        wait = workqueue.compute_retry_seconds(record.failures, random.random())  # noqa: S311 - jitter, no secret
        text = f"{type(error).__name__}: {error}"
        extra = {"namespace": key[0], "job": key[1]}
        is_known = isinstance(error, ClientError)
        logger.warning("reconcile failed, next try in %.0f s: %s", wait, text, extra=extra, exc_info=not is_known)
        return wait

    def _log_plan(self, manifest: Manifest, plan: Plan) -> None:
        metadata = manifest["metadata"]
        for event in plan.events:
            extra = {"namespace": metadata["namespace"], "job": metadata["name"], "uid": metadata["uid"]}
            level = logging.WARNING if event.is_warning else logging.INFO
            logger.log(level, "%s", event.message, extra=extra | {"reason": event.reason})

"""Compares everything with the API server, so that a lost event matters for minutes at most.

Versions are compared, not contents: whatever differs from what was last decided on is asked for again. Finished objects
cost it a line of a list and no request. Children whose owner is gone are deleted, and only those that are ours.
"""

import asyncio
import contextlib
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from finetune_operator.runtime.api_client import PAGE_SIZE, Client, ClientError
from finetune_operator.runtime.controller import Controller
from finetune_operator.runtime.health import Health
from finetune_operator.runtime.kind import Key
from finetune_operator.runtime.metrics import Metrics
from finetune_operator.runtime.plan import Manifest
from finetune_operator.runtime.projection import Projection
from finetune_operator.runtime.records import ENDED_POD_PHASES, Record, build_fingerprint
from finetune_operator.runtime.resources import ALL_NAMESPACES, JOBS, PODS
from finetune_operator.runtime.workqueue import MIN_PAUSE_SECONDS

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Child:
    """What is kept of a child until its owner was seen."""

    metadata: Manifest
    is_job: bool


_OWN_METADATA = tuple(f"metadata.{name}" for name in ("namespace", "name", "uid", "generation", "resourceVersion"))
_CHILD_FIELDS = (*_OWN_METADATA, "metadata.labels", "metadata.ownerReferences")
_Owner = tuple[Key, str]
"""Key and uid of an object, as the labels of a child name it."""


class Resync:
    """Compares all objects of a controller's kind."""

    def __init__(
        self,
        controller: Controller,
        client: Client,
        metrics: Metrics,
        health: Health,
        *,
        namespaces: Sequence[str],
        seconds: float,
    ) -> None:
        self._controller = controller
        self._kind = controller.kind
        self._client = client
        self._metrics = metrics
        self._health = health
        self._namespaces = namespaces or (ALL_NAMESPACES,)
        self._seconds = seconds
        self._objects = Projection((*_OWN_METADATA, *self._kind.listed_fields))
        self._children = Projection(_CHILD_FIELDS)
        self.is_first = True

    async def run_forever(self) -> None:
        """Resync at intervals, and soon after a watch had to list anew."""
        while True:
            try:
                await self.run_once()
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
            except Exception as error:  # the next resync must come whatever ended this one
                is_known = isinstance(error, ClientError)
                logger.warning("resync failed: %s: %s", type(error).__name__, error, exc_info=not is_known)
            await asyncio.sleep(MIN_PAUSE_SECONDS)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._seconds):
                    await self._controller.relisted.wait()

    async def run_once(self) -> None:
        """Compare all objects and their Jobs with what the watches said; one namespace doesn't cost the others.

        Raises:
            ClientError: not one of the namespaces could be read.
        """
        is_first = self.is_first
        self._controller.relisted.clear()
        has_drift, has_any = False, False
        for namespace in self._namespaces:
            try:
                has_drift |= await self._compare_namespace(namespace, is_first=is_first)
                has_any = True
            except ClientError as error:
                self._metrics.reconciles.labels("error").inc()
                extra = {"namespace": namespace}
                logger.warning("resync of this namespace failed: %s: %s", type(error).__name__, error, extra=extra)
        self._metrics.queue_depth.set(len(self._controller.queue))
        if not has_any:
            raise ClientError("no namespace could be read")
        resources = (self._kind.resource.plural, JOBS.plural, PODS.plural)
        self.is_first = False
        self._health.record_resync(resources, has_drift=has_drift)

    async def _compare_namespace(self, namespace: str, *, is_first: bool) -> bool:
        """Compare one namespace, or all; tell whether there were orphans."""
        # Children first: an owner that is made between the lists must not make its child look like an orphan.
        children = await self._list_children(namespace)
        gone = {key for key in self._kind.list_recorded() if namespace in (ALL_NAMESPACES, key[0])}
        pages = self._client.list_pages(self._kind.resource, namespace, PAGE_SIZE, projection=self._objects)
        async for page in pages:
            for manifest in page:
                metadata = manifest["metadata"]
                key = (sys.intern(metadata["namespace"]), metadata["name"])
                gone.discard(key)
                self._compare(key, manifest, children.pop((key, metadata["uid"]), []), is_first=is_first)
        for key in gone:
            self._controller.queue.add(key)
        return any([await self._remove_orphans(*owner, found) for owner, found in children.items()])

    async def _list_children(self, namespace: str) -> dict[_Owner, list[_Child]]:
        """Read the metadata of all Jobs and of live pods, by the object that their labels name."""
        labels = f"{self._kind.owner_label},{self._kind.uid_label}"
        live = ",".join(f"status.phase!={phase}" for phase in sorted(ENDED_POD_PHASES))
        children: dict[_Owner, list[_Child]] = {}
        for resource, fields in ((JOBS, ""), (PODS, live)):
            pages = self._client.list_pages(
                resource,
                namespace,
                PAGE_SIZE,
                labels=labels,
                fields=fields,
                is_metadata_only=True,
                projection=self._children,
            )
            async for page in pages:
                for item in page:
                    metadata = item["metadata"]
                    owner = metadata["labels"][self._kind.owner_label], metadata["labels"][self._kind.uid_label]
                    found = children.setdefault(((metadata["namespace"], owner[0]), owner[1]), [])
                    found.append(_Child(metadata, resource is JOBS))
        return children

    def _compare(self, key: Key, manifest: Manifest, children: Sequence[_Child], *, is_first: bool) -> None:
        """Ask for an object unless it was decided on just this."""
        record = self._controller.records.setdefault(key, Record())
        self._controller.index(manifest)
        self._kind.record_seen(manifest)
        is_finished = self._kind.is_finished(manifest)
        record.is_finished = is_finished
        has_jobs = any(child.is_job for child in children)
        versions = build_fingerprint(manifest["metadata"], (child.metadata for child in children))
        if (is_finished and not has_jobs) or versions == record.seen:
            return
        # The watch leaves finished objects out: what changes about one is noticed here alone, and so was not missed.
        record.is_from_resync = not is_first and self._kind.is_watched(manifest)
        self._controller.queue.add(key)

    async def _remove_orphans(self, key: Key, uid: str, children: Sequence[_Child]) -> bool:
        """Delete the Jobs of an object that was in no list; tell whether there were any."""
        ours = [child for child in children if child.is_job and self._kind.is_own_child({"metadata": child.metadata})]
        if not ours:
            return False
        found = await self._client.get(self._kind.resource, *key)
        if found is not None and found["metadata"]["uid"] == uid:
            return False
        return any([await self._delete(key[0], child.metadata) for child in ours])

    async def _delete(self, namespace: str, metadata: Manifest) -> bool:
        name, owner = metadata["name"], self._kind.resource.kind
        extra = {"namespace": namespace, "child": name}
        try:
            is_deleted = await self._client.delete(JOBS, namespace, name, metadata["uid"], "Background")
        except ClientError as error:
            self._metrics.reconciles.labels("error").inc()
            logger.warning("Job %s, whose %s is gone, stays: %s", name, owner, error, extra=extra)
            return False
        if is_deleted:
            self._metrics.resync_drift.labels("orphan").inc()
            logger.warning("deleted Job %s, whose %s is gone", name, owner, extra=extra)
        return is_deleted

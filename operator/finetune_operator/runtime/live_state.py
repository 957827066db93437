"""Reads what one pass decides on: an object and its children, live from the API server."""

import asyncio
from dataclasses import replace
from datetime import datetime

from finetune_operator.runtime.api_client import Client
from finetune_operator.runtime.kind import Children, Key, Kind
from finetune_operator.runtime.plan import Manifest
from finetune_operator.runtime.records import Record
from finetune_operator.runtime.resources import EVENTS, JOBS, PODS


async def read_object(client: Client, kind: Kind, key: Key, record: Record) -> Manifest | None:
    """Read an object; None if it is gone.

    Were the event of a new object, which is taken for it, old news, the write of its status would be refused before
    anything is made. With a status the write might change nothing, and so prove nothing.
    """
    added, record.added = record.added, None
    if added is not None and (added.get("status") or {}).get("observedGeneration", -1) < 0:
        return added
    return await client.get(kind.resource, *key)


async def read_children(
    client: Client, kind: Kind, manifest: Manifest, record: Record, *, around: Children, now: datetime
) -> Children:
    """Read everything around an object that its kind wants to know.

    Args:
        around: what is known of it without the API server.
    """
    children = replace(around, refusals=dict(record.refusals))
    expected = kind.list_expected_jobs(manifest)
    if expected is None:
        return children
    namespace = manifest["metadata"]["namespace"]
    labels = f"{kind.uid_label}={manifest['metadata']['uid']}"
    jobs, pods = await asyncio.gather(
        client.list_all(JOBS, namespace, labels=labels), client.list_all(PODS, namespace, labels=labels)
    )
    # Somebody may have taken the labels off, or the name before us: only a GET by name proves absence.
    for name in sorted(set(expected) - {item["metadata"]["name"] for item in jobs}):
        found = await client.get(JOBS, namespace, name)
        jobs += [found] if found is not None else []
    children = replace(children, jobs=jobs, pods=pods)
    events: list[Manifest] = []
    for uid in kind.list_unexplained(children, now):
        events += await client.list_all(EVENTS, namespace, fields=f"involvedObject.uid={uid}")
    return replace(children, events=events)

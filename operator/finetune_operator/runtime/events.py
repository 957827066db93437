"""Records Events about an object of ours. A lost Event is only a line in the log: the status says the same.

Its name is computed from what it says and of which version of the object, so that a repeated pass makes no second one.
"""

import hashlib
import logging
from collections.abc import Sequence
from datetime import UTC, datetime

from finetune_operator.runtime.api_client import Client, ClientError
from finetune_operator.runtime.plan import Event, Manifest
from finetune_operator.runtime.resources import EVENTS, Resource

COMPONENT = "finetune-operator"

logger = logging.getLogger(__name__)


async def record(client: Client, resource: Resource, manifest: Manifest, events: Sequence[Event]) -> None:
    """Record Events about an object as it was stored last."""
    for event in events:
        namespace = manifest["metadata"]["namespace"]
        try:
            await client.create(EVENTS, namespace, build_event(resource, manifest, event, datetime.now(UTC)))
        except ClientError as error:
            if getattr(error, "code", 0) != 409:
                logger.warning("Event %s was not recorded: %s", event.reason, error, extra={"namespace": namespace})


def build_event(resource: Resource, manifest: Manifest, event: Event, now: datetime) -> Manifest:
    """Build the manifest of an Event."""
    metadata = manifest["metadata"]
    name, namespace, uid = metadata["name"], metadata["namespace"], metadata["uid"]
    version = metadata["resourceVersion"]
    text = f"{uid}/{version}/{event.reason}/{event.message}"
    moment = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "apiVersion": EVENTS.api_version,
        "kind": EVENTS.kind,
        "metadata": {"name": f"{name}.{hashlib.sha256(text.encode()).hexdigest()[:16]}", "namespace": namespace},
        "involvedObject": {
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "namespace": namespace,
            "name": name,
            "uid": uid,
            "resourceVersion": version,
        },
        "reason": event.reason,
        "message": event.message,
        "type": "Warning" if event.is_warning else "Normal",
        "source": {"component": COMPONENT},
        "reportingComponent": COMPONENT,
        "reportingInstance": COMPONENT,
        "firstTimestamp": moment,
        "lastTimestamp": moment,
        "count": 1,
    }

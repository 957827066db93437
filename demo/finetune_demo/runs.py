"""FineTuneJobs in a cluster as the demo and the cluster tests use them: apply, read, wait, delete.

Only what `kubectl` could do too; nothing here decides how a run goes on.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

from kubernetes.client import ApiException

from finetune_api import group
from finetune_api.kinds.finetunejob.status import ConditionType, FineTuneJobStatus
from finetune_api.kinds.status_conditions import is_true
from finetune_devcluster.api_client import Client, Kind

FINE_TUNE_JOB = Kind(group.API_VERSION, group.KIND)
_POLL_SECONDS = 1.0
"""Between two looks at the runs; people watch this, so a second is soon enough."""


def apply_run(client: Client, manifest: dict[str, Any]) -> None:
    """Create the job, or leave the one that is there: a run never runs twice."""
    try:
        client.create(manifest)
    except ApiException as error:
        if error.status != 409:
            raise


def fetch_statuses(client: Client, namespace: str) -> dict[str, FineTuneJobStatus]:
    """Return the status of every job of a namespace by name."""
    items = client.list(FINE_TUNE_JOB, namespace)
    return {item["metadata"]["name"]: FineTuneJobStatus.model_validate(item["status"]) for item in items}


def is_finished(status: FineTuneJobStatus) -> bool:
    """Tell whether the run has ended, either way."""
    return is_true(status.conditions, ConditionType.FINISHED)


def wait_until(
    client: Client,
    namespace: str,
    names: Sequence[str],
    *,
    is_reached: Callable[[FineTuneJobStatus], bool] = is_finished,
    deadline_seconds: float,
    show: Callable[[dict[str, FineTuneJobStatus]], None] = lambda _: None,
) -> dict[str, FineTuneJobStatus]:
    """Wait until every named run has reached a state, and return the statuses.

    Raises:
        TimeoutError: the deadline passed; the message says what was seen last.
    """
    end = time.monotonic() + deadline_seconds
    while True:
        statuses = {name: status for name, status in fetch_statuses(client, namespace).items() if name in names}
        show(statuses)
        if len(statuses) == len(names) and all(is_reached(status) for status in statuses.values()):
            return statuses
        if time.monotonic() > end:
            seen = {name: _describe(status) for name, status in statuses.items()}
            raise TimeoutError(f"runs in {namespace} must get there within {deadline_seconds:.0f} s; seen last: {seen}")
        time.sleep(_POLL_SECONDS)


def _describe(status: FineTuneJobStatus) -> str:
    conditions = [f"{item.type}={item.status} {item.reason}: {item.message}" for item in status.conditions]
    return f"{status.phase} {conditions}"

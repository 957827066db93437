"""kopf's decorators: watches in, keys out.

Only handlers that write nothing to our objects are used: no index, timer, daemon or change handler, so there is no
finalizer that could get stuck and no annotation that copies a spec. Nothing is decided here.
"""

import logging
from typing import Any

import kopf
from aiohttp import web

from finetune_api import group
from finetune_operator.runtime import health as vital_signs
from finetune_operator.runtime.client import UNFINISHED_SELECTOR, ClusterError
from finetune_operator.runtime.controller import Worker
from finetune_operator.runtime.health import Health
from finetune_operator.runtime.metrics import Metrics
from finetune_operator.settings import Settings

logger = logging.getLogger(__name__)


class Memo(kopf.Memo):
    """What the process carries from the start to the handlers."""

    settings: Settings
    metrics: Metrics
    health: Health
    worker: Worker
    endpoints: web.AppRunner


@kopf.on.login(id="login")
def log_in(**kwargs: Any) -> kopf.ConnectionInfo | None:  # noqa: ANN401 - kopf's arguments, passed on
    """Use the ServiceAccount or the kubeconfig, never whatever client library is installed."""
    return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)


@kopf.on.startup(id="start", retries=1)
async def start(memo: Memo, settings: kopf.OperatorSettings, **_: object) -> None:
    """Serve the endpoints, check the API server, start the workers."""
    memo.endpoints = await vital_signs.serve(
        memo.metrics, memo.health, metrics_port=memo.settings.metrics_port, health_port=memo.settings.health_port
    )
    try:
        if await memo.worker.start():
            settings.watching.field_selectors[group.GROUP, group.VERSION, group.PLURAL] = UNFINISHED_SELECTOR
    except ClusterError as error:
        raise kopf.PermanentError(str(error)) from error


@kopf.on.cleanup(id="stop", retries=1)
async def stop(memo: Memo, **_: object) -> None:
    """Stop the workers and the endpoints."""
    await memo.worker.stop()
    await memo.endpoints.cleanup()


@kopf.on.event(group.GROUP, group.VERSION, group.PLURAL, id="finetunejobs")
@kopf.on.event("batch", "v1", "jobs", id="jobs", labels={group.LABEL_JOB: kopf.PRESENT})
@kopf.on.event("", "v1", "pods", id="pods", labels={group.LABEL_JOB: kopf.PRESENT})
async def enqueue(memo: Memo, resource: kopf.Resource, type: str | None, body: kopf.Body, **_: object) -> None:  # noqa: A002 - kopf's name
    """Ask for the FineTuneJob an object is about."""
    memo.worker.enqueue(resource.plural, type, body)

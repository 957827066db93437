"""Start-up: settings, logs, the parts of the runtime and the kinds it runs. `python -m finetune_operator`."""

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import AsyncIterator, Coroutine

from finetune_api import group
from finetune_operator import (
    handlers,  # noqa: F401 - registers the handlers
    settings,
)
from finetune_operator.jobs.kind import FineTuneJobs
from finetune_operator.runtime import access, health, kopf_runner, logs, pod_poller
from finetune_operator.runtime.access import AccessError
from finetune_operator.runtime.api_client import Client, ClientError
from finetune_operator.runtime.controller import Controller
from finetune_operator.runtime.health import Health
from finetune_operator.runtime.kopf_runner import Memo
from finetune_operator.runtime.metrics import Metrics
from finetune_operator.runtime.pod_poller import PodPoller
from finetune_operator.runtime.resync import Resync
from finetune_operator.settings import Settings

logger = logging.getLogger(__name__)

EX_CONFIG = 78


async def run(configuration: Settings) -> None:
    """Run the operator until it is told to stop.

    Raises:
        AccessError: the CRD is missing, or a rule in every watched namespace.
        ClientError: the API server can't be reached at the start.
    """
    metrics = Metrics()
    signs = Health(metrics, configuration.resync_seconds)
    kind, client = FineTuneJobs(configuration, metrics), Client(metrics)
    poller = PodPoller(kind, metrics, seconds=configuration.progress_seconds)
    controller = Controller(kind, client, metrics, signs, poller)
    namespaces = configuration.watched_namespaces
    resync = Resync(controller, client, metrics, signs, namespaces=namespaces, seconds=configuration.resync_seconds)
    endpoints = await health.serve(
        metrics,
        signs,
        metrics_port=configuration.metrics_port,
        health_port=configuration.health_port,
        metrics_token_file=configuration.metrics_token_file,
    )
    try:
        await access.check_access(client, kind.resource, namespaces)
        kopf_settings = kopf_runner.build_kopf_settings(group.GROUP, kind.owner_label)
        if await access.can_select(client, kind.resource, namespaces, kind.unfinished_selector):
            resource = kind.resource
            kopf_settings.watching.field_selectors[resource.group, resource.version, resource.plural] = (
                kind.unfinished_selector
            )
        loops = [controller.work() for _ in range(configuration.workers)]
        loops += [poller.work(controller.queue.add) for _ in range(pod_poller.PARALLEL)]
        async with _running(*loops, resync.run_forever(), signs.watch_loop()):
            await kopf_runner.watch(kopf_settings, namespaces, Memo(controller=controller, ending=asyncio.Event()))
    finally:
        await endpoints.cleanup()
        await poller.close()
        await client.close()


@contextlib.asynccontextmanager
async def _running(*loops: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Run endless coroutines beside a block; whatever they were at is taken up again after the next start."""
    tasks = [asyncio.create_task(loop) for loop in loops]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _run_to_exit_code(configuration: Settings) -> int:
    code = 0
    try:
        await run(configuration)
    except AccessError as error:
        logger.error("%s", error)
        code = EX_CONFIG
    except ClientError as error:
        logger.error("the API server can't be used: %s", error)
        code = 1
    # What kopf has left behind may ignore that it is cancelled; the process must end all the same.
    remaining = asyncio.all_tasks() - {asyncio.current_task()}
    if remaining and (await asyncio.wait(remaining, timeout=0.1))[1]:
        logging.shutdown()
        os._exit(code)
    return code


def main() -> int:
    """Start the operator; the exit code is 78 (EX_CONFIG) where environment or cluster can't be used."""
    try:
        configuration = settings.load_settings()
    except settings.SettingsError as error:
        logs.configure_logging("json", "INFO")
        logger.error("%s", error)
        return EX_CONFIG
    logs.configure_logging(configuration.log_format, configuration.log_level)
    return asyncio.run(_run_to_exit_code(configuration))


if __name__ == "__main__":
    sys.exit(main())

"""Start-up: settings, logs, the parts of the runtime and the kinds it runs. `python -m finetune_operator`."""

import asyncio
import contextlib
import gc
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
from finetune_operator.runtime import health, kopf_runner, logs
from finetune_operator.runtime.access import AccessError
from finetune_operator.runtime.api_client import Client, ClientError
from finetune_operator.runtime.health import Health
from finetune_operator.runtime.kind import Kind
from finetune_operator.runtime.kopf_runner import Memo
from finetune_operator.runtime.metrics import Metrics
from finetune_operator.runtime.runner import Runner
from finetune_operator.settings import Settings

logger = logging.getLogger(__name__)

EX_CONFIG = 78
GC_THRESHOLD = 10_000
"""New objects between two collections: with the default, 700, each reconcile is followed by several."""


async def run(configuration: Settings) -> None:
    """Run the operator until it is told to stop.

    Raises:
        AccessError: the CRD is missing, or a rule in every watched namespace.
        ClientError: the API server can't be reached at the start.
    """
    metrics = Metrics()
    signs = Health(metrics, configuration.resync_seconds)
    client, namespaces = Client(metrics), configuration.watched_namespaces
    kinds: list[Kind] = [FineTuneJobs(configuration, metrics)]
    runners = [_build_runner(kind, client, metrics, signs, configuration) for kind in kinds]
    endpoints = await health.serve(
        metrics,
        signs,
        metrics_port=configuration.metrics_port,
        health_port=configuration.health_port,
        metrics_token_file=configuration.metrics_token_file,
    )
    try:
        kopf_settings = kopf_runner.build_kopf_settings(group.GROUP, group.LABEL_JOB)
        for runner in runners:
            await runner.prepare(kopf_settings)
        loops = [loop for runner in runners for loop in runner.build_loops(configuration.workers)]
        memo = Memo(controllers=[runner.controller for runner in runners], ending=asyncio.Event())
        async with _running(*loops, signs.watch_loop()):
            await kopf_runner.watch(kopf_settings, namespaces, memo)
    finally:
        await endpoints.cleanup()
        for runner in runners:
            await runner.close()
        await client.close()


def _build_runner(kind: Kind, client: Client, metrics: Metrics, signs: Health, configuration: Settings) -> Runner:
    return Runner(
        kind,
        client,
        metrics,
        signs,
        namespaces=configuration.watched_namespaces,
        resync_seconds=configuration.resync_seconds,
        progress_seconds=configuration.progress_seconds,
    )


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
    # What is there by now, libraries above all, stays until the end: no collection needs to look through it again.
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
    return asyncio.run(_run_to_exit_code(configuration))


if __name__ == "__main__":
    sys.exit(main())

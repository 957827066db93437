"""kopf, which watches: its settings, and starting it again whenever an answer of the API server ended it.

kopf ends on an error inside a watch other than 410, on a refused list, and on a 401 that a new login with the same
token doesn't mend. The work goes on meanwhile: it hangs on the queue and the resync, not on kopf. A new start logs
in and lists anew.
"""

import asyncio
import contextlib
import logging
import random
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import kopf

from finetune_operator.runtime import api_client
from finetune_operator.runtime.controller import Controller

logger = logging.getLogger(__name__)

_FIRST_BACKOFF_SECONDS, _LAST_BACKOFF_SECONDS = 1.0, 60.0
_LONG_ENOUGH_SECONDS = 300.0
"""After so long without an end the next one is a new trouble (a choice)."""


_LOGIN_LIFETIME = timedelta(hours=1)
"""The kubelet renews a ServiceAccount's token when a fifth of its life is left, at the latest once a day."""
_END_SECONDS = 20.0
"""So long kopf may take to end, below the pod's grace period of 30 s (a choice)."""


class Memo(kopf.Memo):
    """What kopf carries to the handlers.

    Attributes:
        ending: kopf has begun to end.
    """

    controllers: Sequence[Controller]
    ending: asyncio.Event


class EndlessBackoffs:
    """Pauses between tries of kopf's own requests: jittered, doubling to a minute, without end.

    kopf iterates anew for every request, and a watch that ran out of pauses would end kopf in the middle of a
    control-plane outage. No `__len__`: there is none.
    """

    def __iter__(self) -> Iterator[float]:
        pause = _FIRST_BACKOFF_SECONDS
        while True:
            yield pause * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, no secret
            pause = min(_LAST_BACKOFF_SECONDS, pause * 2)


class NoDiffBase(kopf.DiffBaseStorage):
    """Keeps no last-seen state.

    By default kopf copies every object it hears of, to compare it with what a handler for changes saw last. There is
    no such handler here, and the copies cost more than all else kopf does for an event.
    """

    def build(self, **_: object) -> kopf.BodyEssence:
        """Return nothing to compare."""
        return cast(kopf.BodyEssence, {})

    def fetch(self, **_: object) -> None:
        """Return that nothing was kept."""

    def store(self, **_: object) -> None:
        """Keep nothing."""


def build_kopf_settings(prefix: str, child_label: str) -> kopf.OperatorSettings:
    """Set what kopf must do otherwise than by default.

    Args:
        prefix: of annotations and finalizer, though none is written.
        child_label: label of the Jobs and pods that are watched.
    """
    result = kopf.OperatorSettings()
    result.persistence.finalizer = f"{prefix}/finalizer"
    result.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=prefix)
    result.persistence.diffbase_storage = NoDiffBase()
    result.posting.enabled = False
    result.networking.request_timeout = 30
    result.networking.connect_timeout = 10
    result.networking.error_backoffs = EndlessBackoffs()
    result.watching.inactivity_timeout = 70  # the API server sends a bookmark every 60 s
    result.watching.server_timeout = 300
    result.watching.chunk_size = api_client.WATCH_PAGE_SIZE
    result.watching.label_selectors["batch", "v1", "jobs"] = child_label
    result.watching.label_selectors["", "v1", "pods"] = child_label
    result.queueing.idle_timeout = 5.0
    result.scanning.disabled = True
    result.peering.standalone = True
    # kopf would kill the process so long after it ends, also where it is started again; the kubelet does so anyway.
    result.process.ultimate_exiting_timeout = None
    return result


class Login:
    """Logs kopf in, again and again.

    kopf takes credentials that were refused once for refused for ever and ends. A login that says until when it holds
    differs from the one before; what keeps it from being tried without end is a pause that grows with each.
    """

    def __init__(self) -> None:
        self._latest = -_LONG_ENOUGH_SECONDS
        self._attempts = 0

    async def log_in(self, **kwargs: Any) -> kopf.ConnectionInfo | None:  # noqa: ANN401 - kopf's arguments, passed on
        """Use the ServiceAccount or the kubeconfig as they are now, never whatever client library is installed."""
        is_new = time.monotonic() - self._latest > _LONG_ENOUGH_SECONDS
        self._attempts = 0 if is_new else self._attempts + 1
        if self._attempts:
            await asyncio.sleep(_compute_pause(self._attempts))
        self._latest = time.monotonic()
        found = kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)
        return replace(found, expiration=datetime.now(UTC) + _LOGIN_LIFETIME) if found is not None else None


async def watch(settings: kopf.OperatorSettings, namespaces: Sequence[str], memo: Memo) -> None:
    """Watch until a signal comes; an end of any other kind is followed by a pause and a new start."""
    stop, failures = asyncio.Event(), 0
    while not stop.is_set():
        began = time.monotonic()
        memo.ending.clear()
        ended = await _wait_for_end(asyncio.create_task(_run_kopf(settings, namespaces, memo, stop)), memo.ending)
        if stop.is_set():
            return
        failures = 1 if time.monotonic() - began > _LONG_ENOUGH_SECONDS else failures + 1
        pause = _compute_pause(failures)
        logger.warning("watches ended, begun anew in %.1f s: %s", pause, ended)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await stop.wait()


async def _run_kopf(
    settings: kopf.OperatorSettings, namespaces: Sequence[str], memo: Memo, stop: asyncio.Event
) -> None:
    existing = asyncio.all_tasks()
    tasks = await kopf.spawn_tasks(
        settings=settings,
        standalone=True,
        clusterwide=not namespaces,
        namespaces=namespaces,
        memo=memo,
        stop_flag=stop,
    )
    # In the place of kopf's own, which a signal between two runs, or at the end of one, would be lost to.
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await kopf.run_tasks(tasks, ignored=existing)


async def _wait_for_end(running: asyncio.Task[None], ending: asyncio.Event) -> str:
    """Wait until kopf has ended; return why."""
    is_ending = asyncio.create_task(ending.wait())
    try:
        await asyncio.wait({running, is_ending}, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait({running}, timeout=_END_SECONDS)
        if not running.done():
            # Its tasks may wait for a login that nobody performs any more: they are left behind.
            return f"kopf did not end within {_END_SECONDS:.0f} s"
        error = running.exception()
        return f"{type(error).__name__}: {error}"
    finally:
        is_ending.cancel()
        if not running.done():
            running.cancel()


def _compute_pause(failures: int) -> float:
    longest: float = min(_LAST_BACKOFF_SECONDS, _FIRST_BACKOFF_SECONDS * 2 ** min(failures - 1, 10))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, no secret

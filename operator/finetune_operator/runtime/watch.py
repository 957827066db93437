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
from typing import cast

import kopf

logger = logging.getLogger(__name__)

_FIRST_BACKOFF_SECONDS, _LAST_BACKOFF_SECONDS = 1.0, 60.0
_WATCH_PAGE_SIZE = 100
"""Objects per page of kopf's lists. Measured with 3,000 FineTuneJobs of 19 KB each: a page of 500 costs 40 MB."""
_LONG_ENOUGH_SECONDS = 300.0
"""After so long without an end the next one is a new trouble (a choice)."""


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
    result.watching.chunk_size = _WATCH_PAGE_SIZE
    result.watching.label_selectors["batch", "v1", "jobs"] = child_label
    result.watching.label_selectors["", "v1", "pods"] = child_label
    result.queueing.idle_timeout = 5.0
    result.scanning.disabled = True
    result.peering.standalone = True
    result.process.ultimate_exiting_timeout = 25  # below the pod's grace period of 30 s
    return result


async def watch(settings: kopf.OperatorSettings, namespaces: Sequence[str], memo: kopf.Memo) -> None:
    """Watch until a signal comes; an end of any other kind is followed by a pause and a new start."""
    stop = asyncio.Event()
    failures, loop = 0, asyncio.get_running_loop()
    while not stop.is_set():
        began = time.monotonic()
        try:
            await kopf.operator(
                settings=settings,
                standalone=True,
                clusterwide=not namespaces,
                namespaces=namespaces,
                memo=memo,
            )
            return
        except Exception as error:  # the process never ends for what a server says
            failures = 1 if time.monotonic() - began > _LONG_ENOUGH_SECONDS else failures + 1
            pause = _compute_pause(failures)
            logger.warning("watches ended, begun anew in %.1f s: %s: %s", pause, type(error).__name__, error)
        # kopf's own handlers of signals belong to the run that ended.
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await stop.wait()


def _compute_pause(failures: int) -> float:
    longest: float = min(_LAST_BACKOFF_SECONDS, _FIRST_BACKOFF_SECONDS * 2 ** min(failures - 1, 10))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, no secret

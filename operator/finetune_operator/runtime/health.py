"""Whether this process does its work: ages that the liveness probe judges, and the endpoints that tell.

A quiet cluster is healthy: the resync is what proves that the API server answers. kopf's own endpoint is not used: it
binds one address, and the kubelet probes a pod at whichever address it has, IPv4 or IPv6.
"""

import asyncio
import hmac
import time
from pathlib import Path

from aiohttp import web

from finetune_operator.runtime.metrics import Metrics

MAX_LOOP_LAG_SECONDS = 10.0
"""A loop blocked for longer answers no probe in time anyway (a choice)."""
MISSED_RESYNCS = 5
"""So many intervals without a whole resync mean that something hangs (a choice): one may be slow or fail."""
_TICK_SECONDS = 1.0


class Health:
    """The signs of life of one operator process."""

    def __init__(self, metrics: Metrics, resync_seconds: float) -> None:
        self._metrics = metrics
        self._max_silence = MISSED_RESYNCS * max(resync_seconds, 30.0)
        self._last_resync = time.monotonic()
        self._lag = 0.0
        self.is_ready = False

    def record_watch_event(self, resource: str) -> None:
        """Note that a watch delivered something."""
        self._metrics.last_watch_event.labels(resource).set_to_current_time()

    def record_resync(self, resources: tuple[str, ...], *, has_drift: bool) -> None:
        """Note a whole resync; without drift it proves that the watches missed nothing."""
        self._last_resync = time.monotonic()
        self.is_ready = True
        for resource in () if has_drift else resources:
            self.record_watch_event(resource)

    def find_problem(self) -> str:
        """Say why this process should be restarted; empty while it need not be."""
        silence = time.monotonic() - self._last_resync
        if silence > self._max_silence:
            return f"no resync for {silence:.0f} s, more than {self._max_silence:.0f} s"
        if self._lag > MAX_LOOP_LAG_SECONDS:
            return f"the event loop runs {self._lag:.1f} s late"
        return ""

    async def watch_loop(self) -> None:
        """Measure, for ever, how late the event loop runs its timers."""
        while True:
            begin = time.monotonic()
            await asyncio.sleep(_TICK_SECONDS)
            self._lag = max(0.0, time.monotonic() - begin - _TICK_SECONDS)
            self._metrics.loop_lag.set(self._lag)


def _is_authorized(given: str, token_file: str) -> bool:
    # Read each time: the kubelet replaces the file when the Secret changes. An empty or missing one lets nobody in.
    try:
        token = Path(token_file).read_bytes().strip()
    except OSError:
        return False
    return bool(token) and hmac.compare_digest(given.encode(), b"Bearer " + token)


async def serve(
    metrics: Metrics, health: Health, *, metrics_port: int, health_port: int, metrics_token_file: str = ""
) -> web.AppRunner:
    """Serve /metrics, /readyz and /healthz, each at both ports, until the returned runner is cleaned up.

    Args:
        metrics_token_file: /metrics asks for the bearer token in this file; empty: for none. The probes never ask.
    """

    async def get_metrics(request: web.Request) -> web.Response:
        if metrics_token_file and not _is_authorized(request.headers.get("Authorization", ""), metrics_token_file):
            return web.Response(status=401, headers={"WWW-Authenticate": "Bearer"})
        return web.Response(body=metrics.build_exposition(), headers={"Content-Type": "text/plain; version=0.0.4"})

    async def get_readiness(_: web.Request) -> web.Response:
        return web.Response(status=200 if health.is_ready else 503, text="ok\n" if health.is_ready else "starting\n")

    async def get_health(_: web.Request) -> web.Response:
        problem = health.find_problem()
        return web.Response(status=500 if problem else 200, text=f"{problem or 'ok'}\n")

    application = web.Application()
    application.add_routes(
        [web.get("/metrics", get_metrics), web.get("/readyz", get_readiness), web.get("/healthz", get_health)]
    )
    runner = web.AppRunner(application, handle_signals=False, access_log=None)
    await runner.setup()
    for port in (metrics_port, health_port):
        # Without a host: every address of the pod.
        await web.TCPSite(runner, port=port).start()
    return runner

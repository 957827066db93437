"""Asks running pods what they are at, one request per object and interval; whoever decides is told of news only.

The pods are strangers: few are asked at a time, each for two seconds and some kilobytes, and nothing they say is looked
at here. No answer is no fault. Beside the question a pod may be told a wish, once; whether it was is remembered until
the status says so.
"""

import asyncio
import logging
import time
from collections.abc import Callable

import aiohttp

from finetune_operator.runtime.kind import Answer, Key, Kind
from finetune_operator.runtime.metrics import Metrics
from finetune_operator.runtime.plan import Endpoint
from finetune_operator.runtime.workqueue import KeyQueue

PARALLEL = 8
"""Pods asked at the same time (a choice): one that hangs keeps a place for two seconds."""
TIMEOUT_SECONDS = 2.0
MAX_ANSWER_BYTES = 16_384

logger = logging.getLogger(__name__)


class PodPoller:
    """Asks the pods that the last passes named.

    Args:
        kind: says what is news.
        seconds: between two requests about one object.
        clock: monotonic seconds.
    """

    def __init__(
        self, kind: Kind, metrics: Metrics, *, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._kind = kind
        self._metrics = metrics
        self._seconds = seconds
        self._clock = clock
        self._queue = KeyQueue(clock)
        self._endpoints: dict[Key, Endpoint] = {}
        self._answers: dict[Key, Answer] = {}
        self._asked: dict[Key, float] = {}
        self._session: aiohttp.ClientSession | None = None

    def follow(self, key: Key, endpoint: Endpoint | None) -> None:
        """Ask this pod from now on; None: nobody is to be asked about the object."""
        known = self._answers.get(key)
        if endpoint is None or (known is not None and known.pod_uid != endpoint.pod_uid):
            self._answers.pop(key, None)
        if endpoint is None:
            self._endpoints.pop(key, None)
            return
        is_new = key not in self._endpoints
        self._endpoints[key] = endpoint
        if is_new:
            self._queue.add(key, max(0.0, self._asked.get(key, -self._seconds) + self._seconds - self._clock()))

    def forget(self, key: Key) -> None:
        """Drop everything about an object that is gone."""
        self.follow(key, None)
        self._asked.pop(key, None)

    def get_answer(self, key: Key) -> Answer | None:
        """Return what the pod of an object said last."""
        return self._answers.get(key)

    async def work(self, notify: Callable[[Key], None]) -> None:
        """Ask one pod after the other, for ever; several of these share the work.

        Args:
            notify: is told of which object there is news.
        """
        while True:
            key = await self._queue.take()
            try:
                if await self._visit(key):
                    notify(key)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                # Only a task of a library below was cancelled: kopf, when it ends, cancels what it doesn't know.
            except Exception:  # what one pod says must leave the others alone
                logger.warning("an answer could not be taken in", exc_info=True, extra={"namespace": key[0]})
            self._queue.finish(key)
            if key in self._endpoints:
                self._queue.add(key, self._seconds)

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _visit(self, key: Key) -> bool:
        """Ask the pod of an object, or tell it a wish; return whether there is news."""
        endpoint = self._endpoints.get(key)
        if endpoint is None:
            return False
        self._asked[key] = self._clock()
        last = self._answers.get(key, Answer(endpoint.pod_uid))
        if endpoint.wish and endpoint.wish != last.wish:
            is_told = await self._request("POST", endpoint.wish_url, endpoint) is not None
            new = Answer(endpoint.pod_uid, last.body, endpoint.wish) if is_told else None
        else:
            body = await self._request("GET", endpoint.url, endpoint)
            new = Answer(endpoint.pod_uid, body, last.wish) if body is not None else None
        self._metrics.pod_requests.labels("error" if new is None else "success").inc()
        # Another pod may have taken its place meanwhile.
        current = self._endpoints.get(key)
        if new is None or current is None or current.pod_uid != new.pod_uid:
            return False
        self._answers[key] = new
        return new.wish != last.wish or (bool(new.body) and self._kind.is_news(current.known, new.body))

    async def _request(self, method: str, url: str, endpoint: Endpoint) -> bytes | None:
        """Send one request; return the body of a good answer."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=PARALLEL, force_close=True),
                # The library's own limit may swallow that this task is cancelled in the same moment.
                timeout=aiohttp.ClientTimeout(total=None),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
            )
        try:
            async with (
                asyncio.timeout(TIMEOUT_SECONDS),
                self._session.request(method, url, headers=dict(endpoint.headers), allow_redirects=False) as answer,
            ):
                body = b""
                async for chunk in answer.content.iter_chunked(4096):
                    body += chunk
                    if len(body) > MAX_ANSWER_BYTES:
                        return None
                return body if 200 <= answer.status < 300 else None
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            logger.debug("pod %s gave no answer: %s: %s", endpoint.pod_uid, type(error).__name__, error)
            return None

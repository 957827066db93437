"""Carries the API client's requests through aiohttp, which kopf brings along and whose parser is written in C.

The client's own transport costs twice the CPU per request, and a request is most of what the operator does. Answers are
read whole: no watch goes this way. Failures come out as the client library's own exceptions. Proxies of the environment
are left out, as kopf leaves them out for its watches.
"""

import ssl

import aiohttp
import httpx2
import yarl

MAX_CONNECTIONS = 64
"""Kept open at most (a choice): two and more for each of the default number of workers."""


class AiohttpTransport(httpx2.AsyncBaseTransport):
    """Sends requests over connections that are kept open.

    Args:
        context: for TLS.
        timeout_seconds: for a whole request.
        connect_seconds: for a connection.
    """

    def __init__(self, context: ssl.SSLContext, timeout_seconds: float, connect_seconds: float) -> None:
        self._context = context
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds, sock_connect=connect_seconds)
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request and read the whole answer.

        Raises:
            TransportError: the API server could not be reached, or broke off.
            TimeoutException: it took too long.
        """
        session = self._open_session()
        body = await request.aread()
        try:
            async with session.request(
                request.method,
                yarl.URL(str(request.url), encoded=True),
                headers=request.headers.multi_items(),
                data=body or None,
                allow_redirects=False,
            ) as answer:
                content = await answer.read()
                return httpx2.Response(answer.status, headers=list(answer.raw_headers), content=content)
        except TimeoutError as error:
            raise httpx2.ReadTimeout(str(error) or "no answer in time", request=request) from error
        except aiohttp.ClientConnectorError as error:
            raise httpx2.ConnectError(str(error), request=request) from error
        except aiohttp.ClientError as error:
            raise httpx2.ReadError(str(error), request=request) from error

    async def aclose(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _open_session(self) -> aiohttp.ClientSession:
        # Made at the first request: it belongs to the event loop that runs then.
        if self._session is None:
            connector = aiohttp.TCPConnector(ssl=self._context, limit=MAX_CONNECTIONS)
            self._session = aiohttp.ClientSession(connector=connector, timeout=self._timeout, auto_decompress=False)
        return self._session

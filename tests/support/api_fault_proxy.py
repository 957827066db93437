"""A proxy in front of the real API server that does to single requests what a healthy server never does.

Everything else passes through unchanged, watches included. Faults are taken in order by the requests they match. It
runs in a thread with an event loop of its own; `faults` may be changed while it runs.
"""

import asyncio
import base64
import contextlib
import json
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from aiohttp import web

_DROPPED_HEADERS = ("host", "content-length", "transfer-encoding", "connection", "content-encoding", "accept-encoding")


@dataclass
class Fault:
    """What happens to the next requests that it matches.

    Attributes:
        verb: `watch`, `list`, `get`, `create`, `patch`, `delete`; empty: any.
        resource: plural, with `/status` for a status; empty: any.
        times: requests that are hit; -1: all.
        delay_seconds: wait so long before the request is passed on.
        status: answer this instead of asking the server.
        headers: of that answer.
        is_aborted: break off the connection instead of asking the server.
        is_lost: let the server do what it is asked, then break off: the answer is lost.
        watch_error: code of an ERROR event that is sent into a watch, which then ends.
        is_silent: deliver nothing of a watch and keep it open.
        is_repeated: deliver every event of a watch twice.
    """

    verb: str = ""
    resource: str = ""
    times: int = 1
    delay_seconds: float = 0.0
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    is_aborted: bool = False
    is_lost: bool = False
    watch_error: int = 0
    is_silent: bool = False
    is_repeated: bool = False


class ApiFaultProxy:
    """A running proxy.

    Attributes:
        kubeconfig: as the one it was made from, by way of the proxy.
        faults: those to come.
        hits: verb and resource of the requests that met a fault.
    """

    def __init__(self, upstream: Path, kubeconfig: Path) -> None:
        document = yaml.safe_load(upstream.read_text())
        cluster = document["clusters"][0]["cluster"]
        self._server: str = cluster["server"]
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self._context = ssl.create_default_context(cadata=authority)
        self._document = document
        self.kubeconfig = kubeconfig
        self.faults: list[Fault] = []
        self.hits: list[tuple[str, str]] = []
        self._lock = threading.Lock()
        self._watches: dict[int, web.Request] = {}

    def take(self, verb: str, resource: str) -> Fault | None:
        """Return the fault that the next request of this kind meets."""
        with self._lock:
            for fault in self.faults:
                if fault.times == 0 or fault.verb not in ("", verb) or fault.resource not in ("", resource):
                    continue
                fault.times -= 1 if fault.times > 0 else 0
                self.hits.append((verb, resource))
                return fault
        return None

    def drop_watches(self) -> None:
        """Break off all watches that are open."""
        for request in list(self._watches.values()):
            request.task.get_loop().call_soon_threadsafe(_break_off, request)

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncIterator[None]:
        """Serve until the end of the block."""
        connector = aiohttp.TCPConnector(ssl=self._context, limit=0)
        async with aiohttp.ClientSession(connector=connector, read_bufsize=2**22) as session:

            async def handle(request: web.Request) -> web.StreamResponse:
                return await self._handle(session, request)

            application = web.Application(client_max_size=2**24)
            application.router.add_route("*", "/{path:.*}", handle)
            runner = web.AppRunner(application, shutdown_timeout=0.1, access_log=None)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self._write_kubeconfig(runner.addresses[0][1])
            try:
                yield
            finally:
                await runner.cleanup()

    def _write_kubeconfig(self, port: int) -> None:
        self._document["clusters"][0]["cluster"] = {"server": f"http://127.0.0.1:{port}"}
        self.kubeconfig.write_text(yaml.safe_dump(self._document))

    async def _handle(self, session: aiohttp.ClientSession, request: web.Request) -> web.StreamResponse:
        verb, resource = _classify(request)
        fault = self.take(verb, resource) or Fault()
        if fault.delay_seconds:
            await asyncio.sleep(fault.delay_seconds)
        if fault.is_aborted:
            return _break_off(request)
        if fault.status:
            body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": fault.status, "message": "made"}
            return web.json_response(body, status=fault.status, headers=fault.headers)
        body_bytes = await request.read()
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _DROPPED_HEADERS}
        timeout = aiohttp.ClientTimeout(total=None)
        url = f"{self._server}{request.path_qs}"
        async with session.request(
            request.method, url, data=body_bytes or None, headers=headers, timeout=timeout
        ) as answer:
            if fault.is_lost:
                await answer.read()
                return _break_off(request)
            if verb == "watch" and answer.status == 200:
                self._watches[id(request)] = request
                try:
                    return await _stream(request, answer, fault)
                finally:
                    del self._watches[id(request)]
            kept = {"Content-Type": answer.headers.get("Content-Type", "application/json")}
            return web.Response(status=answer.status, body=await answer.read(), headers=kept)


def _classify(request: web.Request) -> tuple[str, str]:
    """Return verb and resource as RBAC has them."""
    parts = request.path.strip("/").split("/")
    parts = parts[2:] if parts[0] == "api" else parts[3:]
    if parts[:1] == ["namespaces"] and len(parts) > 2:
        parts = parts[2:]
    resource = "/".join([*parts[:1], *parts[2:3]])
    if request.method == "GET":
        verb = "watch" if request.query.get("watch") else "get" if len(parts) > 1 else "list"
    else:
        verb = {"POST": "create", "PATCH": "patch", "DELETE": "delete"}.get(request.method, request.method)
    return verb, resource


def _break_off(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


async def _stream(request: web.Request, answer: aiohttp.ClientResponse, fault: Fault) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    if fault.watch_error:
        status: dict[str, Any] = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "made"}
        event = {"type": "ERROR", "object": status | {"code": fault.watch_error}}
        await response.write(json.dumps(event).encode() + b"\n")
        return response
    with contextlib.suppress(ConnectionError, aiohttp.ClientError):
        async for line in answer.content:
            if fault.is_silent:
                continue
            await response.write(line * 2 if fault.is_repeated else line)
    return response


@contextlib.contextmanager
def running_proxy(upstream: Path, directory: Path) -> Iterator[ApiFaultProxy]:
    """Run a proxy for the API server of a kubeconfig that authenticates by a token, until the end of the block."""
    proxy = ApiFaultProxy(upstream, directory / "proxy.kubeconfig")
    is_up = threading.Event()
    running: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def serve() -> None:
        async with proxy.serve():
            running.append((asyncio.get_running_loop(), asyncio.Event()))
            is_up.set()
            await running[0][1].wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    try:
        assert is_up.wait(10), "the proxy must be up"
        yield proxy
    finally:
        loop, stop = running[0]
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)

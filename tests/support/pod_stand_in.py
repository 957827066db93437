"""A pod's HTTP server on a loopback address, as the operator finds it behind a pod's IP: it answers what a test says.

Every address of 127.0.0.0/8 is this machine's: each played pod gets one of its own, and the port of the contract.
"""

import contextlib
import itertools
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from finetune_api import live

_numbers = itertools.count(2)


def choose_address() -> str:
    """Return a loopback address that no other pod of this process has."""
    number = next(_numbers)
    return f"127.94.{number // 250}.{number % 250 + 2}"


@dataclass
class PodStandIn:
    """What a pod serves, and what it was asked.

    Attributes:
        on_wish: what the pod does about a wish for a checkpoint.
        answer: writes the whole answer to a GET; by default `report` as JSON.
        requests: method, path and pod header of every request.
    """

    address: str
    port: int = 0
    report: dict[str, Any] = field(default_factory=dict)
    answer: Callable[[BaseHTTPRequestHandler], None] | None = None
    wish_status: int = 202
    on_wish: Callable[[], None] | None = None
    requests: list[tuple[str, str, str]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://{self.address}:{self.port}"

    def count(self, method: str) -> int:
        """Return how often it was asked so."""
        return sum(1 for item in self.requests if item[0] == method)


def reply(handler: BaseHTTPRequestHandler, code: int, body: bytes, **headers: str) -> None:
    """Send an ordinary answer."""
    handler.send_response(code)
    for name, value in {"Content-Length": str(len(body)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    with contextlib.suppress(OSError):  # who asked may have gone
        handler.wfile.write(body)


@contextlib.contextmanager
def serving(address: str = "127.0.0.1", port: int = 0) -> Iterator[PodStandIn]:
    """Serve at an address until the end of the block."""
    pod = PodStandIn(address)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            pod.requests.append(("GET", self.path, self.headers.get(live.POD_HEADER, "")))
            if pod.answer is not None:
                pod.answer(self)
            else:
                reply(self, 200, json.dumps(pod.report).encode())

        def do_POST(self) -> None:
            pod.requests.append(("POST", self.path, self.headers.get(live.POD_HEADER, "")))
            reply(self, pod.wish_status, b"{}")
            if pod.on_wish is not None:
                pod.on_wish()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the base class
            """Say nothing."""

    server = ThreadingHTTPServer((address, port), Handler)
    server.daemon_threads = True
    pod.port = int(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield pod
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

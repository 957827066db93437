"""The pod's one HTTP server: `GET /metrics` and `GET /progress`, and `POST /checkpoint` for the operator.

Runs in a thread of rank 0. Nothing that is asked here can stop a run: few connections at a time, each short, no body is
read, and all that can be changed is the wish for a checkpoint, which needs the pod's uid and comes true once.
"""

import contextlib
import hmac
import logging
import os
import socket
import socketserver
import threading
from http import HTTPStatus
from typing import Any

import prometheus_client

from finetune_api import live, run
from finetune_api.run import Stage
from finetune_trainer.telemetry import prometheus
from finetune_trainer.telemetry.live import STATE, LiveState

logger = logging.getLogger(__name__)

MAX_CONNECTIONS = 16
"""Served at the same time (a choice): Prometheus, the operator and a person; a further one is closed."""
_REQUEST_SECONDS = 5
"""What a client gets to send its request (a choice)."""


def start(stage: Stage, port: int | None = None, state: LiveState = STATE) -> int | None:
    """Serve in a thread of its own; a port that is taken costs the figures, not the run.

    Args:
        stage: that runs.
        port: port to listen on, 0 for a free one. Default: `FINETUNE_METRICS_PORT`, else the contract's port.
        state: that is told.

    Returns:
        The port that answers, or None when none could be opened.
    """
    state.begin(stage)
    try:
        wanted = int(os.environ.get(run.METRICS_PORT_VARIABLE, run.METRICS_PORT)) if port is None else port
        server = _Server(_listen(wanted), state, os.environ.get(run.POD_UID_VARIABLE, ""))
    except (OSError, OverflowError, ValueError) as error:
        logger.warning("metrics and progress are not served: %s", error)
        return None
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return int(server.socket.getsockname()[1])


def _listen(port: int) -> socket.socket:
    """Listen at every address of the pod, IPv4 and IPv6."""
    if socket.has_dualstack_ipv6():
        # The system may know IPv6 and yet have no address for it.
        with contextlib.suppress(OSError):
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True

    def __init__(self, listening: socket.socket, state: LiveState, pod_uid: str) -> None:
        super().__init__(("", 0), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listening
        self.state, self.pod_uid = state, pod_uid
        self._free = threading.BoundedSemaphore(MAX_CONNECTIONS)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - inherited
        """Say nothing of clients that go away, nor fill the log for one that comes without end."""
        logger.debug("a request failed", exc_info=True)


class _Handler(prometheus_client.MetricsHandler):
    registry = prometheus.REGISTRY
    timeout = _REQUEST_SECONDS
    server: _Server

    def do_GET(self) -> None:  # noqa: N802 - the name `BaseHTTPRequestHandler` calls
        if self.path.partition("?")[0] != live.PROGRESS_PATH:
            super().do_GET()
        elif live.POD_HEADER in self.headers and not self._is_meant():
            self._answer(HTTPStatus.MISDIRECTED_REQUEST)
        else:
            text = self.server.state.read().model_dump_json(exclude_none=True)
            self._answer(HTTPStatus.OK, text.encode())

    def do_POST(self) -> None:  # noqa: N802 - the name `BaseHTTPRequestHandler` calls
        if self.path != live.CHECKPOINT_PATH:
            self._answer(HTTPStatus.NOT_FOUND)
        elif not self._is_meant():
            self._answer(HTTPStatus.MISDIRECTED_REQUEST)
        elif self.server.state.read().stage != Stage.TRAIN:
            self._answer(HTTPStatus.CONFLICT)
        else:
            self.server.state.request_checkpoint()
            self._answer(HTTPStatus.ACCEPTED)

    def _is_meant(self) -> bool:
        given, own = self.headers.get(live.POD_HEADER, ""), self.server.pod_uid
        return bool(own) and hmac.compare_digest(given.encode(), own.encode())

    def _answer(self, status: HTTPStatus, body: bytes = b"{}") -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

"""A proxy in front of the real S3 server that does to single requests what a healthy server never does.

Everything else passes through unchanged, signatures included: the Host header is kept. Faults are taken in order by the
requests they match.
"""

import contextlib
import http.client
import http.server
import os
import socket
import ssl
import struct
import threading
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class Fault:
    """What happens to the next requests of a method.

    Attributes:
        method: `GET`, `PUT`, `HEAD` …
        times: requests that are hit.
        status: answer this instead of asking the server; 0: ask it.
        is_late: let the server do what it is asked before `status` is answered.
        code: of the error in the answer's XML.
        detail: more XML of the error.
        body_bytes: let so many bytes of the body through, then break off.
        after: requests of the method that pass first.
        is_reset: break off with a TCP reset instead of an orderly end.
        signal: send this process a signal before the answer.
        silence: answer nothing until this is set.
        headers: of the answer, instead of the server's.
        flipped_byte: change the byte at this place of the body, of the request where that has one; -1: none.
    """

    method: str
    times: int = 1
    status: int = 0
    is_late: bool = False
    code: str = ""
    detail: str = ""
    body_bytes: int = -1
    after: int = 0
    is_reset: bool = False
    signal: int = 0
    silence: threading.Event | None = None
    headers: dict[str, str] = field(default_factory=dict)
    flipped_byte: int = -1


@dataclass
class FaultProxy:
    """A running proxy."""

    upstream: str
    endpoint_url: str = ""
    faults: list[Fault] = field(default_factory=list)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    """Method, path and headers of every request, in order."""
    num_open: int = 0
    most_open: int = 0
    """Requests that were being answered at the same time."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, method: str) -> Fault | None:
        """Return the fault the next request of this method meets."""
        with self.lock:
            for fault in self.faults:
                if fault.method != method or fault.times == 0:
                    continue
                if fault.after > 0:
                    fault.after -= 1
                    continue
                fault.times -= 1
                return fault
        return None


@contextlib.contextmanager
def start_fault_proxy(
    upstream: str, tls: ssl.SSLContext | None = None, address: str = "127.0.0.1"
) -> Iterator[FaultProxy]:
    """Run a proxy on a free port of an address, which speaks TLS where it is given a context."""
    proxy = FaultProxy(upstream)

    class Handler(_Handler):
        state = proxy

    server = http.server.ThreadingHTTPServer((address, 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    proxy.endpoint_url = f"{'https' if tls else 'http'}://{address}:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _flip(content: bytes, fault: Fault | None) -> bytes:
    if fault is None or fault.flipped_byte < 0 or not content:
        return content
    flipped = bytearray(content)
    flipped[fault.flipped_byte] ^= 1
    return bytes(flipped)


class _Handler(http.server.BaseHTTPRequestHandler):
    state: FaultProxy
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Stay silent."""

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):
            super().handle()

    def _answer(self) -> None:
        with self.state.lock:
            self.state.num_open += 1
            self.state.most_open = max(self.state.most_open, self.state.num_open)
        try:
            self._answer_one()
        finally:
            with self.state.lock:
                self.state.num_open -= 1

    def _answer_one(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        with self.state.lock:
            self.state.requests.append((self.command, self.path, dict(self.headers)))
        fault = self.state.take(self.command)
        if fault is not None and fault.signal:
            os.kill(os.getpid(), fault.signal)
        if fault is not None and fault.silence:
            fault.silence.wait()
        if fault is not None and fault.status and not fault.is_late:
            self._refuse(fault)
            return
        if body:
            body = _flip(body, fault)
        upstream = http.client.HTTPConnection(urllib.parse.urlsplit(self.state.upstream).netloc, timeout=30)
        with contextlib.closing(upstream):
            headers = {name: value for name, value in self.headers.items() if name.lower() != "expect"}
            upstream.request(self.command, self.path, body=body, headers=headers)
            response = upstream.getresponse()
            content = response.read()
            if fault is not None and fault.is_late:
                self._refuse(fault)
                return
            if not body:
                content = _flip(content, fault)
            self.send_response(response.status)
            dropped = ("connection", "date", "server", "transfer-encoding", "content-length")
            answer = {name: value for name, value in response.getheaders() if name.lower() not in dropped}
            for name, value in (answer | (fault.headers if fault is not None else {})).items():
                self.send_header(name, value)
            length = response.getheader("Content-Length") if self.command == "HEAD" else str(len(content))
            self.send_header("Content-Length", length or "0")
            self.end_headers()
        if fault is None or fault.body_bytes < 0:
            self.wfile.write(content)
            return
        self.wfile.write(content[: fault.body_bytes])
        self.wfile.flush()
        if fault.is_reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        self.close_connection = True

    def _refuse(self, fault: Fault) -> None:
        content = f"<Error><Code>{fault.code}</Code><Message>made by the test</Message>{fault.detail}</Error>".encode()
        content = b"" if self.command == "HEAD" or fault.status < 400 else content
        self.send_response(fault.status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Type", "application/xml")
        for name, value in fault.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _answer  # noqa: N815 - the names http.server looks for

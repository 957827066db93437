"""A process that speaks as much S3 as a client's benchmark needs, and costs as little processor as it can.

GET and HEAD of objects are answered from the files of a folder with `sendfile`, ranges included; a listing names them.
PUT and multipart uploads are read and counted; with `--keep` the bodies are also written below the folder, so that
another process can compare them. No signature is checked and no digest is computed: an ETag names the object and its
size, and is never the MD5 of a body. `RAW <path>` instead of a request sends a whole file without any HTTP.
"""

import argparse
import contextlib
import itertools
import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

_SLICE_BYTES = 1024 * 1024
_BUFFER_BYTES = 2**20
_LOCK = threading.Lock()
_NUMBERS = itertools.count()


@contextlib.contextmanager
def start(folder: Path, *, cap_mb: int = 0, keep: bool = False) -> Iterator[tuple[str, int]]:
    """Run a server on a free port of loopback in a process of its own.

    Args:
        folder: `<bucket>/<key>` below it are the objects.
        cap_mb: most MB (10^6 bytes) a second that one connection is sent; 0: no limit.
        keep: write what is put below the folder.
    """
    command = [sys.executable, __file__, str(folder), "--cap-mb", str(cap_mb), *(["--keep"] if keep else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield "127.0.0.1", int(process.stdout.readline())
        finally:
            process.terminate()


class _Client:
    """One connection."""

    def __init__(self, connection: socket.socket, folder: Path, cap: int, keep: bool) -> None:
        self.connection, self.folder, self.cap, self.keep = connection, folder, cap, keep
        self.received = b""
        self.buffer = memoryview(bytearray(_BUFFER_BYTES))

    def serve(self) -> None:
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(ConnectionError), self.connection:
            while head := self._read_head():
                if head.startswith(b"RAW "):
                    path = self.folder / head[4:].decode()
                    self._send_file(path, 0, path.stat().st_size)
                else:
                    self._answer(head.decode("latin-1"))

    def _read_head(self) -> bytes:
        while b"\r\n\r\n" not in self.received:
            more = self.connection.recv(65536)
            if not more:
                return b""
            self.received += more
        head, _, self.received = self.received.partition(b"\r\n\r\n")
        return head

    def _answer(self, head: str) -> None:
        first, _, rest = head.partition("\r\n")
        method, target, _ = first.split(" ")
        headers = dict(re.findall(r"(?mi)^([^:\r\n]+): *([^\r\n]*)", rest.lower()))
        path, _, query = target.partition("?")
        name = urllib.parse.unquote(path).lstrip("/")
        parameters = urllib.parse.parse_qs(query, keep_blank_values=True)
        match method:
            case "GET" if "list-type" in parameters:
                self._list(name, parameters.get("prefix", [""])[0])
            case "GET" | "HEAD":
                self._get(name, headers, is_head=method == "HEAD")
            case "PUT":
                part = f".{int(parameters['partNumber'][0]):05}" if "partNumber" in parameters else ""
                self._put(name + part, headers)
            case "POST":
                self._read_body(None, int(headers.get("content-length", "0")))
                self._post(name, "uploads" in parameters)
            case _:
                self._reply("204 No Content")

    def _list(self, bucket: str, prefix: str) -> None:
        root = self.folder / bucket.rstrip("/")
        items = "".join(
            f"<Contents><Key>{key}</Key><Size>{size}</Size><ETag>&quot;{size}&quot;</ETag></Contents>"
            for path in sorted(root.rglob("*"))
            if path.is_file() and (key := path.relative_to(root).as_posix()).startswith(prefix)
            for size in (path.stat().st_size,)
        )
        self._reply("200 OK", body=f"<ListBucketResult><IsTruncated>false</IsTruncated>{items}</ListBucketResult>")

    def _get(self, name: str, headers: dict[str, str], *, is_head: bool) -> None:
        path = self.folder / name
        size = _sizes.get(name) if name in _sizes else path.stat().st_size if path.is_file() else None
        if size is None:
            self._reply("404 Not Found")
            return
        start, end, status = 0, size, "200 OK"
        extra = {"ETag": f'"{size}"', "Accept-Ranges": "bytes", "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}
        if found := re.fullmatch(r"bytes=(\d+)-(\d*)", headers.get("range", "")):
            start, end, status = int(found[1]), min(size, int(found[2] or size - 1) + 1), "206 Partial Content"
            extra["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        self._reply(status, extra, length=end - start)
        if not is_head:
            self._send_file(path, start, end)

    def _send_file(self, path: Path, start: int, end: int) -> None:
        with path.open("rb") as stream:
            began, first = time.perf_counter(), start
            while start < end:
                most = min(end - start, _SLICE_BYTES) if self.cap else end - start
                start += os.sendfile(self.connection.fileno(), stream.fileno(), start, most)
                if self.cap:
                    time.sleep(max(0.0, (start - first) / self.cap - (time.perf_counter() - began)))

    def _put(self, name: str, headers: dict[str, str]) -> None:
        if headers.get("expect") == "100-continue":
            self.connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        length = int(headers.get("content-length", "0"))
        self._read_body(self.folder / name if self.keep else None, length)
        with _LOCK:
            _sizes[name] = length
        self._reply("200 OK", {"ETag": f'"{length}-{next(_NUMBERS)}"'})

    def _read_body(self, path: Path | None, length: int) -> None:
        with contextlib.ExitStack() as stack:
            target = None
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                target = stack.enter_context(path.open("wb"))
            early, self.received = self.received[:length], self.received[length:]
            if target is not None:
                target.write(early)
            left = length - len(early)
            while left:
                count = self.connection.recv_into(self.buffer[: min(left, _BUFFER_BYTES)])
                if not count:
                    raise ConnectionError
                if target is not None:
                    target.write(self.buffer[:count])
                left -= count

    def _post(self, name: str, is_start: bool) -> None:
        if is_start:
            self._reply(
                "200 OK", body="<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>"
            )
            return
        with _LOCK:
            parts = sorted(key for key in _sizes if re.fullmatch(re.escape(name) + r"\.\d{5}", key))
            _sizes[name] = sum(_sizes.pop(part) for part in parts)
        if self.keep:
            with (self.folder / name).open("wb") as target:
                for part in parts:
                    target.write((self.folder / part).read_bytes())
                    (self.folder / part).unlink()
        self._reply("200 OK", body='<CompleteMultipartUploadResult><ETag>"1-1"</ETag></CompleteMultipartUploadResult>')

    def _reply(
        self, status: str, extra: dict[str, str] | None = None, body: str = "", length: int | None = None
    ) -> None:
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}"]
        lines += [f"{key}: {value}" for key, value in (extra or {}).items()]
        self.connection.sendall(("\r\n".join(lines) + "\r\n\r\n" + body).encode())


_sizes: dict[str, int] = {}
"""Sizes of what was put, by `<bucket>/<key>`."""


def main() -> None:
    """Serve until the process is ended; the first line of output is the port."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cap-mb", type=int, default=0)
    parser.add_argument("--keep", action="store_true")
    chosen = parser.parse_args()
    with socket.create_server(("127.0.0.1", 0), backlog=128) as server:
        print(server.getsockname()[1], flush=True)
        while True:
            connection, _ = server.accept()
            client = _Client(connection, chosen.folder, chosen.cap_mb * 10**6, chosen.keep)
            threading.Thread(target=client.serve, daemon=True).start()


if __name__ == "__main__":
    main()

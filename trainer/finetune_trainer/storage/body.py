"""The body of a GET: read in order, range by range, going on from the last good byte when it breaks off.

4 MiB at a time are read into a reused buffer: boto's own 256 KiB reads cost more than half of the throughput. boto
repeats requests, but not bodies: that happens here. The sockets' receive buffers are left to the kernel, which lets
them grow to what the path needs; a size of our own would switch that off.
"""

import fcntl
import http.client
import sys
import termios
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple, cast

from finetune_api.errors import ConfigError, StorageUnavailable
from finetune_trainer.storage import failures, transfer
from finetune_trainer.storage.connection import Connection
from finetune_trainer.storage.listing import RemoteFile
from finetune_trainer.storage.ranges import Range
from finetune_trainer.telemetry import prometheus

if TYPE_CHECKING:
    import urllib3

_BUFFER_BYTES = 4 * 2**20
_EARLY_BYTES = 2 * 2**20
"""Bytes that have to be there for a read of 4 MiB to count as one that doesn't wait (a choice)."""
_BODY_TRIES = 5
"""Tries of one body without a single new byte (a choice)."""

_buffers = threading.local()


class Chunk(NamedTuple):
    """Bytes of a body; the view is valid until the next chunk is asked for."""

    view: memoryview
    is_late: bool
    """The reader waited for it: the connection, not this process, was too slow."""


def read_range(connection: Connection, file: RemoteFile, offset: int, length: int) -> bytes:
    """Read a part of an object into memory; see `Store.read_range`.

    Raises:
        FineTuneError: as the store answers; DataError when the object changed.
    """
    part = Range(file, offset, min(file.size, offset + length))
    content = bytearray()
    for chunk in iterate_chunks(connection, part, threading.Event()):
        content += chunk.view
    return bytes(content)


def iterate_chunks(connection: Connection, part: Range, stop: threading.Event) -> Iterator[Chunk]:
    """Yield the bytes of a range in order, going on from the last good one when a body breaks off."""
    offset, failed = part.start, 0
    while offset < part.end and not stop.is_set():
        try:
            for chunk in _read_body(connection, Range(part.file, offset, part.end)):
                offset += len(chunk.view)
                failed = 0
                prometheus.record_s3_bytes("in", len(chunk.view))
                yield chunk
                if stop.is_set():
                    return
        except StorageUnavailable:
            failed += 1
            if failed == _BODY_TRIES:
                raise
            prometheus.record_s3_retry()
            transfer.pause(failed)


def _read_body(connection: Connection, part: Range) -> Iterator[Chunk]:
    client, address = connection.client, part.file.address
    wanted = part.end - part.start
    answer = connection.call(
        "GetObject",
        address,
        lambda: client.get_object(
            Bucket=address.bucket,
            Key=address.key,
            Range=f"bytes={part.start}-{part.end - 1}",
            IfMatch=part.file.etag,
        ),
    )
    if answer["ContentLength"] != wanted:
        raise ConfigError(
            f"{address}: {connection.endpoint} must answer ranges; {wanted} bytes were asked for and"
            f" {answer['ContentLength']} announced",
            "use a store that knows the header Range.",
        )
    # The `readinto` of boto and urllib3 reads into fresh memory and copies, a quarter of a download's processor time.
    # That of the response below them doesn't, and counts the bytes all the same; no public name leads to it. Every
    # download fails if urllib3 renames it.
    with answer["Body"] as raw:
        response = cast("urllib3.HTTPResponse", raw)  # what boto gives out here; its stubs say otherwise
        stream = cast("http.client.HTTPResponse", response._fp)
        while wanted:
            view = _get_buffer()[: min(wanted, _BUFFER_BYTES)]
            is_late = _count_waiting(stream) < _EARLY_BYTES
            try:
                count = stream.readinto(view)
            except (http.client.HTTPException, OSError) as error:
                raise failures.classify(error, str(address), connection.endpoint) from error
            wanted -= count
            if count:
                yield Chunk(view[:count], is_late)
            if count < len(view):
                raise StorageUnavailable(f"{address}: the body ended {wanted} bytes early", "the run is tried again.")
        response.release_conn()


def _count_waiting(stream: http.client.HTTPResponse) -> int:
    """Return how many bytes the kernel holds for a connection."""
    return int.from_bytes(fcntl.ioctl(stream.fileno(), termios.FIONREAD, bytes(4)), sys.byteorder)


def _get_buffer() -> memoryview:
    if not hasattr(_buffers, "view"):
        _buffers.view = memoryview(bytearray(_BUFFER_BYTES))
    view: memoryview = _buffers.view
    return view

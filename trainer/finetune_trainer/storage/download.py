"""Ranged parallel downloads into preallocated files.

A download reads 4 MiB at a time into a reused buffer: boto's own 256 KiB reads cost more than half of the throughput.
Ranges run in parallel across files, because many stores cap each connection. boto repeats requests, but not bodies:
each range is taken up again here from its last good byte. Nothing is ever written outside of the root.
"""

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from finetune_api.artifacts import FileEntry
from finetune_api.errors import ConfigError, StorageUnavailable
from finetune_trainer import exporter
from finetune_trainer.storage import failures, rooted, transfer
from finetune_trainer.storage.connection import MAX_WORKERS, Connection
from finetune_trainer.storage.listing import RemoteFile
from finetune_trainer.storage.transfer import Progress

_RANGE_BYTES = 16 * 2**20
_BUFFER_BYTES = 4 * 2**20
_BODY_TRIES = 5
"""Tries of one body without a single new byte (a choice)."""

_buffers = threading.local()


@dataclass(frozen=True, slots=True)
class _Range:
    file: RemoteFile
    start: int
    end: int


def fetch_files(
    connection: Connection, files: Sequence[RemoteFile], root: Path, progress: Progress | None
) -> list[FileEntry]:
    """Download objects below `root`; see `Store.fetch_files`.

    Raises:
        FineTuneError: as the store answers; DataError when an object changed or has a name that can't be a file.
        ConfigError: the disk is full.
    """
    root.mkdir(parents=True, exist_ok=True)
    with rooted.open_folder(root) as root_fd:
        for file in files:
            with rooted.disk_errors(file), rooted.open_below(root_fd, file.name, os.O_CREAT | os.O_TRUNC) as target:
                os.ftruncate(target, file.size)
        stop = threading.Event()

        def fetch(part: _Range) -> None:
            with rooted.disk_errors(part.file), rooted.open_below(root_fd, part.file.name) as target:
                _fetch_range(connection, part, target, stop)
            if progress is not None:
                progress(part.end - part.start)

        transfer.run_all(fetch, _plan_ranges(files), MAX_WORKERS, stop)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda file: transfer.build_entry(root / file.name, file.name), files))


def read_range(connection: Connection, file: RemoteFile, offset: int, length: int) -> bytes:
    """Read a part of an object into memory; see `Store.read_range`.

    Raises:
        FineTuneError: as the store answers; DataError when the object changed.
    """
    part = _Range(file, offset, min(file.size, offset + length))
    content = bytearray()
    for chunk in _iterate_chunks(connection, part, threading.Event()):
        content += chunk
    return bytes(content)


def _plan_ranges(files: Sequence[RemoteFile]) -> list[_Range]:
    return [
        _Range(file, start, min(start + _RANGE_BYTES, file.size))
        for file in files
        for start in range(0, file.size, _RANGE_BYTES)
    ]


def _fetch_range(connection: Connection, part: _Range, target: int, stop: threading.Event) -> None:
    offset = part.start
    for chunk in _iterate_chunks(connection, part, stop):
        view = chunk
        while view:
            written = os.pwrite(target, view, offset)
            offset += written
            view = view[written:]


def _iterate_chunks(connection: Connection, part: _Range, stop: threading.Event) -> Iterator[memoryview]:
    """Yield the bytes of a range in order, going on from the last good one when a body breaks off.

    Each view is valid until the next one is asked for.
    """
    offset, failed = part.start, 0
    while offset < part.end and not stop.is_set():
        try:
            for chunk in _read_body(connection, _Range(part.file, offset, part.end)):
                offset += len(chunk)
                failed = 0
                exporter.record_s3_bytes("in", len(chunk))
                yield chunk
                if stop.is_set():
                    return
        except StorageUnavailable:
            failed += 1
            if failed == _BODY_TRIES:
                raise
            exporter.record_s3_retry()
            transfer.pause(failed)


def _read_body(connection: Connection, part: _Range) -> Iterator[memoryview]:
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
    view = _get_buffer()
    with contextlib.closing(answer["Body"]) as body:
        while wanted:
            try:
                count = body.readinto(view[: min(wanted, _BUFFER_BYTES)])  # type: ignore[arg-type]  # any buffer will do
            except (*failures.S3Error, OSError) as error:
                raise failures.classify(error, str(address), connection.endpoint) from error
            if not count:
                raise StorageUnavailable(f"{address}: the body ended {wanted} bytes early", "the run is tried again.")
            wanted -= count
            yield view[:count]


def _get_buffer() -> memoryview:
    if not hasattr(_buffers, "view"):
        _buffers.view = memoryview(bytearray(_BUFFER_BYTES))
    view: memoryview = _buffers.view
    return view

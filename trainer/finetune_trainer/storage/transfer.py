"""Bodies of objects: ranged parallel downloads into preallocated files, and uploads whose size is checked.

A download reads 4 MiB at a time into a reused buffer: boto's own 256 KiB reads cost more than half of the throughput.
Ranges run in parallel across files, because many stores cap each connection. boto repeats requests, but not bodies:
each range is taken up again here from its last good byte. Nothing is ever written outside of the root.
"""

import contextlib
import errno
import hashlib
import os
import random
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from boto3.s3.transfer import TransferConfig

from finetune_api.artifacts import FileEntry, S3Address, is_safe_key
from finetune_api.errors import ConfigError, DataError, StorageUnavailable
from finetune_trainer import exporter
from finetune_trainer.storage import failures
from finetune_trainer.storage.connection import MAX_WORKERS, Connection
from finetune_trainer.storage.listing import RemoteFile, find_file

Progress = Callable[[int], None]
"""Called with the number of bytes that arrived or left since the last call."""

_RANGE_BYTES = 16 * 2**20
_BUFFER_BYTES = 4 * 2**20
_BODY_TRIES = 5
"""Tries of one body without a single new byte (a choice)."""
_LONGEST_PAUSE_SECONDS = 4.0
_UPLOAD_WORKERS = 4
_UPLOAD_CONFIG = TransferConfig(
    multipart_threshold=64 * 2**20,
    multipart_chunksize=64 * 2**20,
    max_concurrency=MAX_WORKERS // _UPLOAD_WORKERS,
    # The other client, crt, ignores a custom endpoint and talks to AWS instead.
    preferred_transfer_client="classic",
)

_buffers = threading.local()
_Job = TypeVar("_Job")
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class _Range:
    file: RemoteFile
    start: int
    end: int


def pause(attempt: int) -> None:
    """Wait before the next try: a random part of 0.5, 1, 2 … seconds, at most 4."""
    time.sleep(random.uniform(0, min(_LONGEST_PAUSE_SECONDS, 0.5 * 2**attempt)))  # noqa: S311 - jitter is no secret


def fetch_files(
    connection: Connection, files: Sequence[RemoteFile], root: Path, progress: Progress | None
) -> list[FileEntry]:
    """Download objects below `root`; see `Store.fetch_files`.

    Raises:
        FineTuneError: as the store answers; DataError when an object changed or has a name that can't be a file.
        ConfigError: the disk is full.
    """
    root.mkdir(parents=True, exist_ok=True)
    with _open_folder(root) as root_fd:
        for file in files:
            with _disk_errors(file), _open_below(root_fd, file.name, os.O_CREAT | os.O_TRUNC) as target:
                os.ftruncate(target, file.size)
        stop = threading.Event()

        def fetch(part: _Range) -> None:
            with _disk_errors(part.file), _open_below(root_fd, part.file.name) as target:
                _fetch_range(connection, part, target, stop)
            if progress is not None:
                progress(part.end - part.start)

        _run_all(fetch, _plan_ranges(files), MAX_WORKERS, stop)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda file: build_entry(root / file.name, file.name), files))


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


def build_entry(path: Path, name: str) -> FileEntry:
    """Describe a local file by size and sha256."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return FileEntry(path=name, size=os.fstat(stream.fileno()).st_size, sha256=digest)


def upload_file(
    connection: Connection, path: Path, address: S3Address, name: str, progress: Progress | None
) -> FileEntry:
    """Upload one file; see `Store.upload_file`.

    Raises:
        FineTuneError: as the store answers; StorageUnavailable when another size arrived.
    """
    entry = build_entry(path, name)
    client = connection.client

    def send() -> None:
        with path.open("rb") as stream:
            client.upload_fileobj(stream, address.bucket, address.key, Config=_UPLOAD_CONFIG, Callback=progress)

    connection.call("Upload", address, send)
    exporter.record_s3_bytes("out", entry.size)
    arrived = find_file(connection, address)
    if arrived.size != entry.size:
        raise StorageUnavailable(
            f"{address} ({arrived.size} bytes) must have the {entry.size} bytes that were sent",
            "the run is tried again.",
        )
    return entry


def upload_folder(connection: Connection, root: Path, address: S3Address, progress: Progress | None) -> list[FileEntry]:
    """Upload the files of a folder; see `Store.upload_folder`.

    Raises:
        FineTuneError: as the store answers; DataError for a link or a name keys can't have.
    """
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if not path.is_dir())
    for name in names:
        if not is_safe_key(name) or not stat.S_ISREG((root / name).lstat().st_mode):
            raise DataError(f"file ({name!r}) must be a regular file with a plain name", "remove or rename it.")

    def send(name: str) -> FileEntry:
        return upload_file(connection, root / name, address.join(name), name, progress)

    return _run_all(send, names, _UPLOAD_WORKERS, threading.Event())


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
            pause(failed)


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


def _run_all(
    work: Callable[[_Job], _Result], jobs: Sequence[_Job], workers: int, stop: threading.Event
) -> list[_Result]:
    """Do all jobs in threads; the first failure, or an interruption, stops the others and is raised."""
    with ThreadPoolExecutor(workers) as pool:
        futures: list[Future[_Result]] = [pool.submit(work, job) for job in jobs]
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for failed in (future for future in done if future.exception() is not None):
                failed.result()
            return [future.result() for future in futures]
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _disk_errors(file: RemoteFile) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ConfigError(
                f"spec.resources.scratch must hold {file.address} ({file.size} bytes): the disk is full",
                "raise spec.resources.scratch.",
            ) from error
        raise DataError(
            f"{file.address}: key must be usable as a file's name ({os.strerror(error.errno or 0)})",
            "rename the object.",
        ) from error


@contextlib.contextmanager
def _open_folder(path: Path) -> Iterator[int]:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield folder
    finally:
        os.close(folder)


@contextlib.contextmanager
def _open_below(root_fd: int, name: str, flags: int = 0) -> Iterator[int]:
    """Open a file for writing, following no link on the way; folders are made as needed."""
    if not is_safe_key(name):
        raise DataError(f"key ({name!r}) must stay below its folder", "rename the object.")
    *folders, last = name.split("/")
    with contextlib.ExitStack() as stack:
        parent = root_fd
        for folder in folders:
            if flags & os.O_CREAT:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(folder, dir_fd=parent)
            parent = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
            stack.callback(os.close, parent)
        target = os.open(last, os.O_WRONLY | os.O_NOFOLLOW | flags, 0o600, dir_fd=parent)
        stack.callback(os.close, target)
        yield target

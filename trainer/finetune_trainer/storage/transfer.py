"""What downloads and uploads share: jobs in threads that stop together, pauses between tries, a file's entry."""

import hashlib
import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TypeVar

from finetune_api.artifacts import FileEntry
from finetune_api.errors import DataError

Progress = Callable[[int], None]
"""Called with the number of bytes that arrived or left since the last call."""

_LONGEST_PAUSE_SECONDS = 4.0

_buffers = threading.local()
_Job = TypeVar("_Job")
_Result = TypeVar("_Result")


def pause(attempt: int) -> None:
    """Wait before the next try: a random part of 0.5, 1, 2 … seconds, at most 4."""
    time.sleep(random.uniform(0, min(_LONGEST_PAUSE_SECONDS, 0.5 * 2**attempt)))  # noqa: S311 - jitter is no secret


def build_entry(path: Path, name: str) -> FileEntry:
    """Describe a local file by size and sha256."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return FileEntry(path=name, size=os.fstat(stream.fileno()).st_size, sha256=digest)


def read_part(path: Path, start: int, size: int) -> bytearray:
    """Read a part of a file; the thread's next call may reuse the memory.

    Raises:
        DataError: the file ends before.
    """
    # Fresh memory would have to be cleared first, which costs as much as reading.
    content: bytearray = getattr(_buffers, "content", bytearray())
    if len(content) != size:
        content = _buffers.content = bytearray(size)
    with path.open("rb") as stream:
        stream.seek(start)
        if stream.readinto(content) != size:
            raise build_changed_error(path)
    return content


def build_changed_error(path: Path) -> DataError:
    """Say that a file has another size than when its upload began."""
    return DataError(f"file ({path.name!r}) must not change while it is uploaded", "start the job again.")


def run_all(
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

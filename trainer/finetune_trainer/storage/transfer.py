"""What downloads and uploads share: pauses between tries, and a local file's parts, entry and error."""

import hashlib
import os
import random
import threading
import time
from pathlib import Path

from finetune_api.artifacts import FileEntry
from finetune_api.errors import DataError

_LONGEST_PAUSE_SECONDS = 4.0

_buffers = threading.local()


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

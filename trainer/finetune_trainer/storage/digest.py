"""sha256 of a file while its bytes arrive, in whatever order: computed behind the contiguous frontier.

A chunk that continues what is hashed is hashed from the buffer it came in, while it is warm in the processor's cache.
Chunks behind a gap are read back from the file once the gap is closed. hashlib lets other threads run meanwhile.
"""

import hashlib
import os
import threading

from finetune_api.errors import StorageUnavailable

_BUFFER_BYTES = 2**20


class ArrivingDigest:
    """The digest of one file; safe to use from several threads.

    At most one thread hashes at a time. While none does, everything up to the frontier is hashed.

    Args:
        name: of the file, for messages.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._sha256 = hashlib.sha256()
        self._hashed = 0
        self._frontier = 0
        self._end_by_start: dict[int, int] = {}
        self._is_busy = False
        self._lock = threading.Lock()

    def add(self, offset: int, chunk: memoryview) -> bool:
        """Take a chunk that was written to the file; no two may overlap.

        Returns:
            True when a gap was closed: the caller must have `catch_up` called, and nobody else hashes until then.
        """
        with self._lock:
            self._end_by_start[offset] = offset + len(chunk)
            while self._frontier in self._end_by_start:
                self._frontier = self._end_by_start.pop(self._frontier)
            if self._is_busy or self._hashed == self._frontier:
                return False
            # Only this chunk can have moved the frontier, so it begins where the hashed part ends.
            self._is_busy = True
        self._sha256.update(chunk)
        self._hashed += len(chunk)
        return not self._release()

    def catch_up(self, descriptor: int) -> None:
        """Read back from the file and hash what lies between the hashed part and the frontier.

        Args:
            descriptor: of the file, open for reading.

        Raises:
            StorageUnavailable: the file was shortened by somebody else.
        """
        view = memoryview(bytearray(_BUFFER_BYTES))
        while not self._release():
            count = os.preadv(descriptor, [view[: self._frontier - self._hashed]], self._hashed)
            if not count:
                raise StorageUnavailable(
                    f"{self._name} was shortened while it was downloaded", "the run is tried again."
                )
            self._sha256.update(view[:count])
            self._hashed += count

    def hexdigest(self) -> str:
        """Return the digest of what is hashed: of the whole file once every chunk was added and caught up with."""
        return self._sha256.hexdigest()

    def _release(self) -> bool:
        """End this thread's turn, unless there is more to hash."""
        with self._lock:
            self._is_busy = self._hashed < self._frontier
            return not self._is_busy

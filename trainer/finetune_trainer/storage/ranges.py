"""Which bytes are asked for next, and over how many connections. Pure: no requests, no clock.

Few connections with large ranges cost least where one is fast; many are needed where a store caps each. So a transfer
begins with few and adds the rest once most chunks are waited for. Where data waits for this process, as on a fast
network or with little processor, more connections would only cost more.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from finetune_trainer.storage.connection import MAX_WORKERS
from finetune_trainer.storage.listing import RemoteFile

FIRST_WORKERS = 4
"""Connections a transfer begins with. Measured, 2026, two cores: one fast store is read fastest over two to four."""
_LARGEST_RANGE_BYTES = 64 * 2**20
_SMALLEST_RANGE_BYTES = 8 * 2**20


@dataclass(frozen=True, slots=True)
class Range:
    """Bytes `start` to `end`, exclusive, of an object."""

    file: RemoteFile
    start: int
    end: int


@dataclass
class Traffic:
    """What arrived over all connections in a while."""

    num_chunks: int = 0
    num_late: int = 0
    """Chunks that were waited for."""

    def add(self, *, is_late: bool) -> None:
        """Count a chunk."""
        self.num_chunks += 1
        self.num_late += is_late


@dataclass
class Pace:
    """How many connections there should be: few, and all once data is waited for."""

    workers: int = FIRST_WORKERS

    def adapt(self, traffic: Traffic) -> int:
        """Return the number of connections wanted from now on; it never falls.

        Args:
            traffic: what arrived since the last call: about a chunk of each connection at least.
        """
        # Not in steps: the time each takes to show what it brought is lost to a store that caps.
        if 2 * traffic.num_late >= traffic.num_chunks:
            self.workers = MAX_WORKERS
        return self.workers


@dataclass
class RangePlan:
    """Hands out the ranges of files, each byte once; safe to use from several threads.

    A connection goes on with its own file as long as it can, so that the bytes of a file arrive in order. Ranges get
    smaller with more connections and towards the end, so that all end together.
    """

    files: Sequence[RemoteFile]
    _next: int = 0
    _claimed: dict[int, int] = field(default_factory=dict)
    """Bytes handed out of each file that was begun and isn't handed out whole, by its index."""
    _left: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._left = sum(file.size for file in self.files)

    def claim(self, last: int | None, workers: int) -> tuple[int, Range] | None:
        """Return the index of a file and the range of it to fetch next, or None when all are handed out.

        Args:
            last: index of the file this connection has just fetched a range of.
            workers: connections there are.
        """
        with self._lock:
            if (index := self._choose(last)) is None:
                return None
            file, start = self.files[index], self._claimed.get(index, 0)
            fair = max(_SMALLEST_RANGE_BYTES, min(_LARGEST_RANGE_BYTES, self._left // (2 * workers)))
            end = min(file.size, start + fair)
            self._left -= end - start
            self._claimed[index] = end
            if end == file.size:
                del self._claimed[index]
            return index, Range(file, start, end)

    def _choose(self, last: int | None) -> int | None:
        if last in self._claimed:
            return last
        while self._next < len(self.files):
            self._next += 1
            if self.files[self._next - 1].size:
                return self._next - 1
        return max(self._claimed, key=lambda index: self.files[index].size - self._claimed[index], default=None)

"""Keys that wait for their time: they coalesce, are never out twice at once, and never come back within a second.

Neither a skewed clock nor a broken object can make a hot loop of it. The clock is an argument; nothing here knows what
the keys stand for.
"""

import asyncio
import contextlib
import heapq
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from finetune_operator.runtime.kind import Key

MIN_PAUSE_SECONDS = 1.0
MAX_BACKOFF_SECONDS = 300.0


@dataclass(slots=True)
class KeyQueue:
    """Keys that wait for their time.

    A key asked for while it is worked on waits until that is done; asked for twice it is due at the earlier time. One
    asked for with a delay below 0 is urgent.

    Args:
        clock: monotonic seconds.
    """

    clock: Callable[[], float] = time.monotonic
    _due: dict[Key, float] = field(default_factory=dict)
    _heap: list[tuple[float, Key]] = field(default_factory=list)
    _urgent: list[tuple[float, Key]] = field(default_factory=list)
    _active: set[Key] = field(default_factory=set)
    _earliest: dict[Key, float] = field(default_factory=dict)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def __len__(self) -> int:
        return len(self._due)

    def add(self, key: Key, delay_seconds: float = 0.0) -> None:
        """Ask for a key, at once or later; below 0 it goes before those that have waited for less than that."""
        due = max(self.clock() + delay_seconds, self._earliest.get(key, 0.0))
        if due < self._due.get(key, float("inf")):
            self._due[key] = due
            heapq.heappush(self._heap, (due, key))
            if delay_seconds < 0:
                heapq.heappush(self._urgent, (due, key))
            self._changed.set()

    def is_active(self, key: Key) -> bool:
        """Tell whether a key is being worked on."""
        return key in self._active

    def pop(self, *, only_urgent: bool = False) -> tuple[Key | None, float | None]:
        """Take the key that is due, or return how long until the next one is; (None, None): nothing waits."""
        heap = self._urgent if only_urgent else self._heap
        held: list[tuple[float, Key]] = []
        found: Key | None = None
        wait: float | None = None
        while heap:
            due, key = heap[0]
            if self._due.get(key) != due:
                heapq.heappop(heap)
            elif due > self.clock():
                wait = due - self.clock()
                break
            elif key in self._active:
                held.append(heapq.heappop(heap))
            else:
                heapq.heappop(heap)
                del self._due[key]
                self._active.add(key)
                found = key
                break
        for item in held:
            heapq.heappush(heap, item)
        return found, wait

    def finish(self, key: Key) -> None:
        """Give a key back; it isn't due again for a second."""
        self._active.discard(key)
        now = self.clock()
        self._earliest = {item: moment for item, moment in self._earliest.items() if moment > now}
        self._earliest[key] = now + MIN_PAUSE_SECONDS
        if key in self._due and self._due[key] < self._earliest[key]:
            del self._due[key]
            self.add(key)
        self._changed.set()

    async def take(self, *, only_urgent: bool = False) -> Key:
        """Wait for the next key that is due."""
        while True:
            self._changed.clear()
            key, wait = self.pop(only_urgent=only_urgent)
            if key is not None:
                return key
            # No `wait_for`: it makes a task of its own, which kopf cancels when it ends.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._changed.wait()


def compute_retry_seconds(failures: int, share: float) -> float:
    """Return the wait after that many failures in a row: 1 s doubled up to 5 min, of which at most half is random.

    Args:
        failures: at least 1.
        share: from 0 to 1, at random.
    """
    seconds: float = min(MAX_BACKOFF_SECONDS, MIN_PAUSE_SECONDS * 2 ** min(failures, 10))
    return seconds * (0.5 + share / 2)

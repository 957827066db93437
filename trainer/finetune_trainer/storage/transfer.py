"""What fetching and uploading have in common: how much moves at a time, and how it ends.

What is in memory is bounded: `MAX_REQUESTS` parts wait or are on their way, twice as many where small files come beside
large ones.
"""

import asyncio
import os
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from finetune_api.artifacts import FileEntry
from finetune_trainer.storage.connection import MAX_REQUESTS, Connection
from finetune_trainer.storage.store import Progress
from finetune_trainer.telemetry import prometheus

PART_BYTES = 8 * 2**20
"""Of a part, and of the largest file that is moved whole. Measured, 2026, two cores: 16 MiB is as fast where a store is
fast, and a fifth slower where it caps each connection at 90 MB/s."""
_LARGE_AT_ONCE = 4
"""Large files at a time: each is hashed by one thread, and there are rarely more cores to spare (a choice)."""
_TICK_SECONDS = 0.5
"""How often `progress` is called while nothing arrives, so that a signal is noticed (a choice)."""

_Value = TypeVar("_Value")


class Transfer:
    """What fetching and uploading have in common: limits, threads, the first failure ends the others.

    Args:
        connection: to the store.
        sizes: of all files.
        progress: see `store.Progress`.
    """

    def __init__(self, connection: Connection, sizes: Iterable[int], progress: Progress | None) -> None:
        num_large = sum(size > PART_BYTES for size in sizes)
        at_once = max(1, min(_LARGE_AT_ONCE, num_large))
        self.connection = connection
        self.window = MAX_REQUESTS // at_once
        """Parts of a large file at a time."""
        self._large, self._small = asyncio.Semaphore(at_once), asyncio.Semaphore(MAX_REQUESTS)
        self._progress = progress or (lambda _num_bytes: None)

    def limit(self, size: int) -> asyncio.Semaphore:
        """Return what holds a file of this size back until it is its turn."""
        return self._large if size > PART_BYTES else self._small

    async def work(self, function: Callable[..., _Value], *arguments: object) -> _Value:
        """Call a function that computes or blocks in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)

    def count(self, direction: str, num_bytes: int) -> None:
        """Count bytes that have arrived or left."""
        prometheus.record_s3_bytes(direction, num_bytes)
        self._progress(num_bytes)

    async def run(self, jobs: Iterable[Coroutine[Any, Any, FileEntry]]) -> list[FileEntry]:
        """Run all jobs; the first failure, or what `progress` raises, ends the others and is raised."""
        with ThreadPoolExecutor(os.cpu_count()) as self._pool:
            try:
                async with asyncio.TaskGroup() as self.group:
                    watch = self.group.create_task(self._watch())
                    tasks = [self.group.create_task(job) for job in jobs]
                    entries = [await task for task in tasks]
                    watch.cancel()
            except BaseExceptionGroup as failed:
                raise failed.exceptions[0] from None
        return entries

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            self._progress(0)

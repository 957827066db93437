"""Ranged parallel downloads into preallocated files, hashed while they arrive. Nothing is written outside the root."""

import os
import threading
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path

from finetune_api.artifacts import FileEntry
from finetune_trainer.storage import body, rooted
from finetune_trainer.storage.connection import MAX_WORKERS, Connection
from finetune_trainer.storage.digest import ArrivingDigest
from finetune_trainer.storage.listing import RemoteFile
from finetune_trainer.storage.ranges import Pace, Range, RangePlan, Traffic
from finetune_trainer.storage.store import Progress

_WINDOW_SECONDS = 0.1
"""How often the number of connections is looked at (a choice): after two chunks of one that is capped at 90 MB/s."""


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
            rooted.lay_out(file, root_fd, b"")
        return _Download(connection, files, root_fd, progress).run()


class _Download:
    """One call of `fetch_files`: workers that claim ranges, and threads that hash what came out of order."""

    def __init__(
        self, connection: Connection, files: Sequence[RemoteFile], root_fd: int, progress: Progress | None
    ) -> None:
        self._connection = connection
        self._files = files
        self._root_fd = root_fd
        self._progress = progress
        self._plan = RangePlan(files)
        self._pace = Pace()
        self._digests = [ArrivingDigest(str(file.address)) for file in files]
        self._stop = threading.Event()
        self._traffic = Traffic()
        self._lock = threading.Lock()
        self._catch_ups: list[Future[None]] = []

    def run(self) -> list[FileEntry]:
        """Fetch everything; the first failure, or an interruption, stops the workers and is raised."""
        with ThreadPoolExecutor(os.cpu_count()) as self._hashers, ThreadPoolExecutor(MAX_WORKERS) as workers:
            try:
                self._supervise(workers)
            finally:
                self._stop.set()
        for catch_up in self._catch_ups:
            catch_up.result()
        return [
            FileEntry(path=file.name, size=file.size, sha256=digest.hexdigest())
            for file, digest in zip(self._files, self._digests, strict=True)
        ]

    def _supervise(self, workers: ThreadPoolExecutor) -> None:
        running: set[Future[None]] = {workers.submit(self._work) for _ in range(self._pace.workers)}
        while running:
            done, running = wait(running, _WINDOW_SECONDS, FIRST_EXCEPTION)
            for worker in done:
                worker.result()
            with self._lock:
                if done or self._traffic.num_chunks < self._pace.workers:
                    continue
                traffic, self._traffic = self._traffic, Traffic()
            before = self._pace.workers
            added = self._pace.adapt(traffic) - before
            running |= {workers.submit(self._work) for _ in range(added)}

    def _work(self) -> None:
        index: int | None = None
        while not self._stop.is_set() and (claimed := self._plan.claim(index, self._pace.workers)) is not None:
            index, part = claimed
            with rooted.disk_errors(part.file), rooted.open_below(self._root_fd, part.file.name, os.O_WRONLY) as target:
                self._fetch_range(index, part, target)

    def _fetch_range(self, index: int, part: Range, target: int) -> None:
        offset = part.start
        for chunk, is_late in body.iterate_chunks(self._connection, part, self._stop):
            rooted.write(target, chunk, offset)
            if self._digests[index].add(offset, chunk):
                self._catch_ups.append(self._hashers.submit(self._catch_up, index))
            offset += len(chunk)
            # The first chunk of several is always waited for: for the answer, not for the bytes.
            is_first_of_several = offset - len(chunk) == part.start and offset < part.end
            if not is_first_of_several:
                with self._lock:
                    self._traffic.add(is_late=is_late)
            if self._progress is not None:
                self._progress(len(chunk))

    def _catch_up(self, index: int) -> None:
        with rooted.open_below(self._root_fd, self._files[index].name, os.O_RDONLY) as source:
            self._digests[index].catch_up(source)

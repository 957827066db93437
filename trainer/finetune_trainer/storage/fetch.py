"""Downloads: obstore fetches parts, this module hashes and writes them. Nothing is written outside the root.

Parts of a file are asked for ahead of the one that is written, so that a store which caps each connection is used over
many, and hashed in order while they are in memory.
"""

import asyncio
import hashlib
import os
from collections import deque
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import obstore

from finetune_api.artifacts import FileEntry
from finetune_api.errors import StorageUnavailable
from finetune_trainer.storage import failures, rooted
from finetune_trainer.storage.connection import Connection
from finetune_trainer.storage.listing import RemoteFile
from finetune_trainer.storage.store import Progress
from finetune_trainer.storage.transfer import PART_BYTES, Transfer
from finetune_trainer.telemetry import prometheus

if TYPE_CHECKING:
    from obstore import Bytes, GetOptions

_REPEATS = 3
"""Of a part whose body ended early (a choice). obstore goes on from there by itself, but not in every case: of some
forty runs with bodies cut off again and again, one ended."""


def fetch_files(
    connection: Connection, files: Sequence[RemoteFile], root: Path, progress: Progress | None
) -> list[FileEntry]:
    """Download objects below `root`; see `Store.fetch_files`.

    Raises:
        FineTuneError: as the store answers; DataError when an object changed or has a name that can't be a file.
        ConfigError: the disk is full.
    """

    async def fetch_all(root_fd: int) -> list[FileEntry]:
        transfer = Transfer(connection, (file.size for file in files), progress)
        return await transfer.run(_fetch(transfer, file, root_fd) for file in files)

    root.mkdir(parents=True, exist_ok=True)
    with rooted.open_folder(root) as root_fd:
        for file in files:
            rooted.lay_out(file, root_fd, b"")
        return asyncio.run(fetch_all(root_fd))


async def _fetch(transfer: Transfer, file: RemoteFile, root_fd: int) -> FileEntry:
    sha256 = hashlib.sha256()

    def keep(part: "Bytes", offset: int) -> None:
        with rooted.disk_errors(file), rooted.open_below(root_fd, file.name, os.O_WRONLY) as target:
            rooted.write(target, memoryview(part), offset)
        sha256.update(part)

    async with transfer.limit(file.size):
        starts = iter(range(0, file.size, PART_BYTES))
        parts = deque(
            transfer.group.create_task(_fetch_part(transfer, file, start)) for start in islice(starts, transfer.window)
        )
        offset = 0
        while parts:
            part = await parts.popleft()
            parts.extend(transfer.group.create_task(_fetch_part(transfer, file, start)) for start in islice(starts, 1))
            await transfer.work(keep, part, offset)
            offset += len(part)
            transfer.count("in", len(part))
    return FileEntry(path=file.name, size=file.size, sha256=sha256.hexdigest())


async def _fetch_part(transfer: Transfer, file: RemoteFile, start: int) -> "Bytes":
    connection, address = transfer.connection, file.address
    end = min(file.size, start + PART_BYTES)
    options: GetOptions = {"if_match": file.etag, "range": (start, end)}
    for is_last in (*[False] * _REPEATS, True):
        try:
            answer = await obstore.get_async(connection.open_for_fetch(address.bucket), address.key, options=options)
            part = await answer.bytes_async()
            break
        except failures.TransferError as error:
            connection.record("GetObject", "error")
            if is_last or not failures.is_broken_off(error):
                raise connection.explain(error, address) from None
    connection.record("GetObject", "success")
    if len(part) != end - start:
        raise StorageUnavailable(
            f"{address} must arrive whole; {len(part)} of {end - start} bytes came", "look at the store's health."
        )
    return part


def read_range(connection: Connection, file: RemoteFile, offset: int, length: int) -> bytes:
    """Read a part of an object into memory; see `Store.read_range`.

    Raises:
        FineTuneError: as the store answers; DataError when the object changed.
    """
    end = min(file.size, offset + length)
    if end <= offset:
        return b""
    address = file.address
    options: GetOptions = {"if_match": file.etag, "range": (offset, end)}
    content = connection.call(
        "GetObject",
        address,
        lambda: bytes(obstore.get(connection.open_for_fetch(address.bucket), address.key, options=options).bytes()),
    )
    prometheus.record_s3_bytes("in", len(content))
    return content

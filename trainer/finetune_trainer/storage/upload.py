"""Uploads: small files with one request, large ones in parts that obstore sends; what arrived is checked."""

import asyncio
import hashlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path

import obstore

from finetune_api.artifacts import FileEntry, S3Address
from finetune_api.errors import DataError, StorageUnavailable
from finetune_trainer.storage import failures, objects, rooted
from finetune_trainer.storage.connection import Connection
from finetune_trainer.storage.fetch import read_range
from finetune_trainer.storage.store import Progress
from finetune_trainer.storage.transfer import PART_BYTES, Transfer

logger = logging.getLogger(__name__)

_MAX_PARTS = 10_000
"""https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html"""


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file and where it goes."""

    path: Path
    name: str
    address: S3Address
    size: int


def upload_folder(connection: Connection, root: Path, address: S3Address, progress: Progress | None) -> list[FileEntry]:
    """Upload the files of a folder; see `Store.upload_folder`.

    Raises:
        FineTuneError: as the store answers; StorageUnavailable when something else arrived; DataError for a file that
            changed, a link or a name keys can't have.
    """
    files = [
        LocalFile(root / name, name, address.join(name), (root / name).stat().st_size)
        for name in rooted.list_regular_files(root)
    ]
    begun: set[S3Address] = set()

    async def upload_all() -> list[FileEntry]:
        transfer = Transfer(connection, (file.size for file in files), progress)
        return await transfer.run(_upload(transfer, file, begun) for file in files)

    try:
        return asyncio.run(upload_all())
    finally:
        for target in begun:
            objects.abort_uploads(connection, target)


async def _upload(transfer: Transfer, file: LocalFile, begun: set[S3Address]) -> FileEntry:
    async with transfer.limit(file.size):
        if file.size <= PART_BYTES:
            entry = await _upload_whole(transfer, file)
        else:
            begun.add(file.address)
            entry = await _upload_parts(transfer, file)
            begun.remove(file.address)
    if not entry.size == file.size == file.path.stat().st_size:
        raise DataError(f"file ({file.name!r}) must not change while it is uploaded", "start the job again.")
    transfer.count("out", file.size)
    return entry


async def _upload_whole(transfer: Transfer, file: LocalFile) -> FileEntry:
    """Upload a file with one request; what arrived is proven by its MD5, or read back where an ETag is none."""
    connection, address = transfer.connection, file.address
    content = await transfer.work(file.path.read_bytes)
    entry = FileEntry(path=file.name, size=len(content), sha256=hashlib.sha256(content).hexdigest())
    bucket = connection.open_for_upload(address.bucket)
    try:
        answer = await obstore.put_async(bucket, address.key, content, use_multipart=False)
    except failures.TransferError as error:
        connection.record("PutObject", "error")
        raise connection.explain(error, address) from None
    connection.record("PutObject", "success")
    if (answer["e_tag"] or "").strip('"') != hashlib.md5(content, usedforsecurity=False).hexdigest():
        arrived = await transfer.work(objects.check_size, connection, address, len(content))
        if await transfer.work(read_range, connection, arrived, 0, arrived.size) != content:
            raise StorageUnavailable(
                f"{address} must arrive as it was sent", "look at what lies between the pod and the store."
            )
    return entry


async def _upload_parts(transfer: Transfer, file: LocalFile) -> FileEntry:
    """Upload a file in parts while it is hashed; obstore removes the parts of an upload that fails."""
    connection, address = transfer.connection, file.address
    hashed = transfer.group.create_task(transfer.work(_build_entry, file))
    bucket = connection.open_for_upload(address.bucket)
    try:
        await obstore.put_async(
            bucket,
            address.key,
            file.path,
            use_multipart=True,
            chunk_size=max(PART_BYTES, -(-file.size // _MAX_PARTS)),
            max_concurrency=transfer.window,
        )
    except failures.TransferError as error:
        # A request whose answer was lost is repeated, and most stores know no upload that is complete already.
        if failures.read_answer(error).code != "NoSuchUpload":
            connection.record("CompleteMultipartUpload", "error")
            raise connection.explain(error, address) from None
        logger.info("%s: the upload is not known any more; looking for the object", address)
    connection.record("CompleteMultipartUpload", "success")
    entry = await hashed
    if entry.size == file.size:
        await transfer.work(objects.check_size, connection, address, file.size)
    return entry


def _build_entry(file: LocalFile) -> FileEntry:
    with file.path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return FileEntry(path=file.name, size=os.fstat(stream.fileno()).st_size, sha256=digest)

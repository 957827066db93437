"""Uploads: small files whole, large ones in parts, all over one set of connections; what arrived is checked.

A small file is proven by its MD5: sent along, so that the store refuses a body that differs, and compared with the
ETag. A store whose ETags are no MD5 is asked for the size instead, as after an upload in parts.
"""

import base64
import functools
import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from finetune_api.artifacts import FileEntry, S3Address
from finetune_trainer.storage import objects, rooted, transfer
from finetune_trainer.storage.connection import MAX_WORKERS, Connection
from finetune_trainer.storage.multipart import PART_BYTES, MultipartUpload
from finetune_trainer.storage.store import Progress
from finetune_trainer.telemetry import prometheus


@dataclass(frozen=True, slots=True)
class _LocalFile:
    path: Path
    name: str
    address: S3Address
    size: int


def upload_folder(connection: Connection, root: Path, address: S3Address, progress: Progress | None) -> list[FileEntry]:
    """Upload the files of a folder; see `Store.upload_folder`.

    Raises:
        FineTuneError: as the store answers; StorageUnavailable when another size arrived; DataError for a file that
            changed, a link or a name keys can't have.
    """
    files = [
        _LocalFile(root / name, name, address.join(name), (root / name).stat().st_size)
        for name in rooted.list_regular_files(root)
    ]
    return _Upload(connection, files, progress).run()


class _Upload:
    """One call of `upload_folder`."""

    def __init__(self, connection: Connection, files: Sequence[_LocalFile], progress: Progress | None) -> None:
        self._connection = connection
        self._files = files
        self._progress = progress
        self._entries: dict[str, FileEntry | Future[FileEntry]] = {}
        self._multiparts: list[MultipartUpload] = []

    def run(self) -> list[FileEntry]:
        """Send everything; the first failure, or an interruption, stops the others and is raised."""
        # The digest of a large file is of the whole, those in the signatures of its parts are not: one more reading.
        hashers = ThreadPoolExecutor(os.cpu_count())
        try:
            jobs = [job for file in self._files for job in self._plan(file, hashers)]
            self._run_all(jobs)
            return [self._get_entry(file) for file in self._files]
        finally:
            hashers.shutdown(cancel_futures=True)
            for multipart in self._multiparts:
                multipart.abort()

    def _get_entry(self, file: _LocalFile) -> FileEntry:
        entry = self._entries[file.name]
        if isinstance(entry, Future):
            entry = entry.result()
        if entry.size != file.size:
            raise transfer.build_changed_error(file.path)
        return entry

    def _plan(self, file: _LocalFile, hashers: ThreadPoolExecutor) -> list[Callable[[], int]]:
        if file.size <= PART_BYTES:
            return [functools.partial(self._send_whole, file)]
        self._entries[file.name] = hashers.submit(transfer.build_entry, file.path, file.name)
        multipart = MultipartUpload(self._connection, file.path, file.address, file.size)
        self._multiparts.append(multipart)
        return [functools.partial(multipart.send, index) for index in range(multipart.num_parts)]

    def _run_all(self, jobs: Sequence[Callable[[], int]]) -> None:
        with ThreadPoolExecutor(MAX_WORKERS) as pool:
            done, _ = wait([pool.submit(self._do, job) for job in jobs], return_when=FIRST_EXCEPTION)
            pool.shutdown(wait=False, cancel_futures=True)
        for ended in done:
            ended.result()

    def _do(self, job: Callable[[], int]) -> None:
        num_bytes = job()
        prometheus.record_s3_bytes("out", num_bytes)
        if self._progress is not None:
            self._progress(num_bytes)

    def _send_whole(self, file: _LocalFile) -> int:
        content = transfer.read_part(file.path, 0, file.size)
        md5 = hashlib.md5(content, usedforsecurity=False)
        client, address = self._connection.client, file.address
        answer = self._connection.call(
            "PutObject",
            address,
            lambda: client.put_object(
                Bucket=address.bucket,
                Key=address.key,
                Body=content,  # type: ignore[arg-type]  # the stubs leave out bytearray, which boto documents
                ContentMD5=base64.b64encode(md5.digest()).decode(),
            ),
        )
        if answer.get("ETag", "").strip('"') != md5.hexdigest():
            objects.check_size(self._connection, address, len(content))
        digest = hashlib.sha256(content).hexdigest()
        self._entries[file.name] = FileEntry(path=file.name, size=len(content), sha256=digest)
        return len(content)

"""Uploads whose size is checked, large files in parts."""

import stat
import threading
from pathlib import Path

from boto3.s3.transfer import TransferConfig

from finetune_api.artifacts import FileEntry, S3Address, is_safe_key
from finetune_api.errors import DataError, StorageUnavailable
from finetune_trainer import exporter
from finetune_trainer.storage import transfer
from finetune_trainer.storage.connection import MAX_WORKERS, Connection
from finetune_trainer.storage.listing import find_file
from finetune_trainer.storage.transfer import Progress

_UPLOAD_WORKERS = 4
_UPLOAD_CONFIG = TransferConfig(
    multipart_threshold=64 * 2**20,
    multipart_chunksize=64 * 2**20,
    max_concurrency=MAX_WORKERS // _UPLOAD_WORKERS,
    # The other client, crt, ignores a custom endpoint and talks to AWS instead.
    preferred_transfer_client="classic",
)


def upload_file(
    connection: Connection, path: Path, address: S3Address, name: str, progress: Progress | None
) -> FileEntry:
    """Upload one file; see `Store.upload_file`.

    Raises:
        FineTuneError: as the store answers; StorageUnavailable when another size arrived.
    """
    entry = transfer.build_entry(path, name)
    client = connection.client

    def send() -> None:
        with path.open("rb") as stream:
            client.upload_fileobj(stream, address.bucket, address.key, Config=_UPLOAD_CONFIG, Callback=progress)

    connection.call("Upload", address, send)
    exporter.record_s3_bytes("out", entry.size)
    arrived = find_file(connection, address)
    if arrived.size != entry.size:
        raise StorageUnavailable(
            f"{address} ({arrived.size} bytes) must have the {entry.size} bytes that were sent",
            "the run is tried again.",
        )
    return entry


def upload_folder(connection: Connection, root: Path, address: S3Address, progress: Progress | None) -> list[FileEntry]:
    """Upload the files of a folder; see `Store.upload_folder`.

    Raises:
        FineTuneError: as the store answers; DataError for a link or a name keys can't have.
    """
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if not path.is_dir())
    for name in names:
        if not is_safe_key(name) or not stat.S_ISREG((root / name).lstat().st_mode):
            raise DataError(f"file ({name!r}) must be a regular file with a plain name", "remove or rename it.")

    def send(name: str) -> FileEntry:
        return upload_file(connection, root / name, address.join(name), name, progress)

    return transfer.run_all(send, names, _UPLOAD_WORKERS, threading.Event())

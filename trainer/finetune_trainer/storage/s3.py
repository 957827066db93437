"""`S3Store`: the store of a run in the cluster. The bodies of objects move in `download` and `upload`."""

import functools
from collections.abc import Iterable, Sequence
from pathlib import Path

from finetune_api.artifacts import FileEntry, S3Address
from finetune_api.errors import ConfigError, StorageUnavailable
from finetune_api.kinds.storage import Storage
from finetune_trainer.storage import body, download, failures, objects, transfer, upload
from finetune_trainer.storage.connection import Connection
from finetune_trainer.storage.listing import Item, RemoteFile
from finetune_trainer.storage.store import Progress, Store
from finetune_trainer.telemetry import prometheus

_CONFLICT_TRIES = 5
"""Tries of a conditional put that is answered 409: another one is under way (a choice)."""


class S3Store(Store):
    """Objects in S3 or a store that speaks it.

    Args:
        storage: `spec.storage`; credentials come from the standard AWS variables or the pod's identity.

    Raises:
        ConfigError: boto refuses the settings.
    """

    def __init__(self, storage: Storage) -> None:
        self._connection = Connection(storage)

    def find_file(self, address: S3Address) -> RemoteFile:
        return objects.find_file(self._connection, address)

    def iterate_items(self, prefix: S3Address) -> Iterable[Item]:
        return objects.iterate_items(self._connection, prefix)

    def fetch_files(self, files: Sequence[RemoteFile], root: Path, progress: Progress | None = None) -> list[FileEntry]:
        return download.fetch_files(self._connection, files, root, progress)

    def upload_folder(self, root: Path, address: S3Address, progress: Progress | None = None) -> list[FileEntry]:
        return upload.upload_folder(self._connection, root, address, progress)

    def put_bytes(self, address: S3Address, content: bytes) -> None:
        client = self._connection.client
        self._connection.call(
            "PutObject", address, lambda: client.put_object(Bucket=address.bucket, Key=address.key, Body=content)
        )
        prometheus.record_s3_bytes("out", len(content))

    def put_if_absent(self, address: S3Address, content: bytes) -> bool:
        for attempt in range(_CONFLICT_TRIES):
            written = self._connection.call("PutObject", address, functools.partial(self._put_once, address, content))
            if written is not None:
                prometheus.record_s3_bytes("out", len(content) if written else 0)
                return written
            transfer.pause(attempt)
        raise StorageUnavailable(
            f"{address}: {_CONFLICT_TRIES} conditional writes in a row met another one", "the run is tried again."
        )

    def _put_once(self, address: S3Address, content: bytes) -> bool | None:
        """Put once: True when it wrote, False when an object is there, None when it should be repeated."""
        client = self._connection.client
        try:
            client.put_object(Bucket=address.bucket, Key=address.key, Body=content, IfNoneMatch="*")
        except failures.S3Error as error:
            # https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
            match failures.get_status(error):
                case 412:
                    return False
                case 409:
                    return None
                case 501:
                    raise ConfigError(
                        f"{address} must lie in a store that honours If-None-Match: this one refused the object",
                        "use a store with conditional writes.",
                    ) from error
            raise
        return True

    def read_range(self, file: RemoteFile, offset: int, length: int) -> bytes:
        return body.read_range(self._connection, file, offset, length)

    def delete(self, address: S3Address) -> None:
        client = self._connection.client
        self._connection.call(
            "DeleteObject", address, lambda: client.delete_object(Bucket=address.bucket, Key=address.key)
        )

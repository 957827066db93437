"""`S3Store`: the store of a run in the cluster. Questions and small objects go through boto, files through obstore."""

import functools
import random
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from finetune_api.artifacts import FileEntry, S3Address
from finetune_api.errors import ConfigError, StorageUnavailable
from finetune_api.kinds.storage import Storage
from finetune_trainer.storage import failures, fetch, objects, upload
from finetune_trainer.storage.connection import Connection
from finetune_trainer.storage.listing import Item, RemoteFile
from finetune_trainer.storage.store import Progress, Store
from finetune_trainer.telemetry import prometheus

_CONFLICT_TRIES = 5
"""Tries of a conditional put that is answered 409: another one is under way (a choice)."""
_LONGEST_PAUSE_SECONDS = 2.0


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
        return fetch.fetch_files(self._connection, files, root, progress)

    def upload_folder(self, root: Path, address: S3Address, progress: Progress | None = None) -> list[FileEntry]:
        return upload.upload_folder(self._connection, root, address, progress)

    def put_bytes(self, address: S3Address, content: bytes) -> None:
        client = self._connection.client
        self._connection.call(
            "PutObject", address, lambda: client.put_object(Bucket=address.bucket, Key=address.key, Body=content)
        )
        prometheus.record_s3_bytes("out", len(content))

    def put_if_absent(self, address: S3Address, content: bytes) -> bool:
        for _ in range(_CONFLICT_TRIES):
            written = self._connection.call("PutObject", address, functools.partial(self._put_once, address, content))
            if written is not None:
                prometheus.record_s3_bytes("out", len(content) if written else 0)
                return written
            time.sleep(random.uniform(0, _LONGEST_PAUSE_SECONDS))  # noqa: S311 - jitter is no secret
        raise StorageUnavailable(
            f"{address}: {_CONFLICT_TRIES} conditional writes in a row met another one", "look for another writer."
        )

    def _put_once(self, address: S3Address, content: bytes) -> bool | None:
        """Put once: True when it wrote, False when an object is there, None when it should be repeated."""
        client = self._connection.client
        try:
            client.put_object(Bucket=address.bucket, Key=address.key, Body=content, IfNoneMatch="*")
        except failures.S3Error as error:
            # https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
            match failures.read_answer(error).status:
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
        return fetch.read_range(self._connection, file, offset, length)

    def delete(self, address: S3Address) -> None:
        client = self._connection.client
        self._connection.call(
            "DeleteObject", address, lambda: client.delete_object(Bucket=address.bucket, Key=address.key)
        )

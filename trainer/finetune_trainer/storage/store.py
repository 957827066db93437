"""`Store`: what the stages do with objects, one method each. The bodies of large objects move in `download` and
`upload`."""

import functools
from collections.abc import Sequence
from pathlib import Path

from finetune_api.artifacts import FileEntry, S3Address
from finetune_api.errors import ConfigError, DataError, StorageUnavailable
from finetune_api.kinds.finetunejob.spec import Storage
from finetune_trainer.storage import body, download, failures, listing, rooted, transfer, upload
from finetune_trainer.storage.connection import Connection
from finetune_trainer.storage.listing import RemoteFile
from finetune_trainer.storage.transfer import Progress
from finetune_trainer.telemetry import prometheus

_CONFLICT_TRIES = 5
"""Tries of a conditional put that is answered 409: another one is under way (a choice)."""


class Store:
    """The S3 store of a run; safe to use from several threads.

    Args:
        storage: `spec.storage`; credentials come from the standard AWS variables or the pod's identity.

    Raises:
        ConfigError: boto refuses the settings.

    Every method raises `ReferenceNotFound`, `AccessDenied`, `StorageUnavailable` or `ConfigError` as the store answers;
    the docstrings name only what comes on top.
    """

    def __init__(self, storage: Storage) -> None:
        self._connection = Connection(storage)

    def list_files(self, address: S3Address) -> list[RemoteFile]:
        """Return the objects an address (object, folder or glob) stands for, by name; never an empty list.

        Raises:
            DataError: more than `MAX_FILES` objects, or a key that would leave the folder.
        """
        return listing.list_files(self._connection, address)

    def fetch_file(self, file: RemoteFile, path: Path, progress: Progress | None = None) -> FileEntry:
        """Download one object to `path`, replacing what is there; return its size and sha256.

        Raises:
            DataError: the object changed since it was listed.
        """
        named = RemoteFile(file.address, path.name, file.size, file.etag)
        return self.fetch_files([named], path.parent, progress)[0]

    def fetch_files(self, files: Sequence[RemoteFile], root: Path, progress: Progress | None = None) -> list[FileEntry]:
        """Download objects below `root` under their names, in parallel; return size and sha256 of each, in order.

        Raises:
            DataError: an object changed since it was listed, or its name can't lie below `root`.
        """
        return download.fetch_files(self._connection, files, root, progress)

    def fetch_folder(self, address: S3Address, root: Path, progress: Progress | None = None) -> list[FileEntry]:
        """Download everything an address stands for below `root`.

        Raises:
            DataError: as `list_files` and `fetch_files`.
        """
        return self.fetch_files(self.list_files(address), root, progress)

    def lay_out(self, file: RemoteFile, content: bytes, root: Path) -> None:
        """Write an object's first bytes below `root`, to a sparse file of its whole size.

        Raises:
            DataError: its name can't lie below `root`.
        """
        with rooted.open_folder(root) as root_fd:
            download.lay_out(file, root_fd, content)

    def upload_file(self, path: Path, address: S3Address, progress: Progress | None = None) -> FileEntry:
        """Upload one file, in parts when it is large, and check the size that arrived.

        The entry's path is the file's name.

        Raises:
            StorageUnavailable: the object has another size than the file.
        """
        return upload.upload_file(self._connection, path, address, progress)

    def upload_folder(self, root: Path, address: S3Address, progress: Progress | None = None) -> list[FileEntry]:
        """Upload every regular file below `root` to the folder `address`; return them in the order of their paths.

        Raises:
            DataError: a link, or a name S3 keys can't have.
        """
        return upload.upload_folder(self._connection, root, address, progress)

    def put_bytes(self, address: S3Address, content: bytes) -> None:
        """Write a small object, replacing what is there."""
        client = self._connection.client
        self._connection.call(
            "PutObject", address, lambda: client.put_object(Bucket=address.bucket, Key=address.key, Body=content)
        )
        prometheus.record_s3_bytes("out", len(content))

    def put_if_absent(self, address: S3Address, content: bytes) -> bool:
        """Write a small object unless there is one; tell whether this call wrote it.

        False means that an object is there. It may be our own: an answer that got lost makes boto repeat the request,
        and the repetition finds the first one's object. Read it back and compare.

        Raises:
            ConfigError: the store doesn't know conditional writes.
        """
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
                    raise build_unconditional_error(address) from error
            raise
        return True

    def read_bytes(self, address: S3Address, limit: int) -> bytes:
        """Read a small object.

        Args:
            address: the object.
            limit: most bytes it may have.

        Raises:
            DataError: it is larger than `limit`.
        """
        file = listing.find_file(self._connection, address)
        if file.size > limit:
            raise DataError(f"{address} ({file.size} bytes) must have at most {limit} bytes", "check what lies there.")
        return self.read_range(file, 0, file.size)

    def read_range(self, file: RemoteFile, offset: int, length: int) -> bytes:
        """Read a part of an object, as of its listing; shorter at its end.

        Raises:
            DataError: the object changed since it was listed.
        """
        return body.read_range(self._connection, file, offset, length)

    def delete(self, address: S3Address) -> None:
        """Remove an object; nothing happens when there is none."""
        client = self._connection.client
        self._connection.call(
            "DeleteObject", address, lambda: client.delete_object(Bucket=address.bucket, Key=address.key)
        )


def build_unconditional_error(address: S3Address) -> ConfigError:
    """Say that a store has no conditional writes, without which two attempts could overwrite each other."""
    return ConfigError(
        f"{address} must lie in a store that honours If-None-Match: this one replaced or refused the object",
        "use a store with conditional writes.",
    )

"""`Store`: what the stages do with objects, one method each, whatever keeps the objects."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from finetune_api.artifacts import FileEntry, S3Address
from finetune_api.errors import DataError
from finetune_trainer.storage import listing, rooted
from finetune_trainer.storage.listing import Item, RemoteFile

Progress = Callable[[int], None]
"""Called with the number of bytes that arrived or left since the last call; what it raises ends the transfer."""


class Store(ABC):
    """Where a run's objects lie; safe to use from several threads.

    Every method raises `ReferenceNotFound`, `AccessDenied`, `StorageUnavailable` or `ConfigError` as the store answers;
    the docstrings name only what comes on top.
    """

    @abstractmethod
    def find_file(self, address: S3Address) -> RemoteFile:
        """Return one object."""

    @abstractmethod
    def iterate_items(self, prefix: S3Address) -> Iterable[Item]:
        """Yield the objects of a bucket whose keys begin with a prefix's, in the order of their keys."""

    def list_files(self, address: S3Address) -> list[RemoteFile]:
        """Return the objects an address (object, folder or glob) stands for, by name; never an empty list.

        Raises:
            DataError: more than `MAX_FILES` objects, or a key that would leave the folder.
        """
        return listing.list_files(self, address)

    @abstractmethod
    def fetch_files(self, files: Sequence[RemoteFile], root: Path, progress: Progress | None = None) -> list[FileEntry]:
        """Download objects below `root` under their names, in parallel; return size and sha256 of each, in order.

        What is there is replaced.

        Raises:
            DataError: an object changed since it was listed, or its name can't lie below `root`.
        """

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
            rooted.lay_out(file, root_fd, content)

    @abstractmethod
    def upload_folder(self, root: Path, address: S3Address, progress: Progress | None = None) -> list[FileEntry]:
        """Upload every regular file below `root` to the folder `address`; return them in the order of their paths.

        Raises:
            DataError: a link, a name keys can't have, or a file that changes meanwhile.
            StorageUnavailable: an object has another size than its file.
        """

    @abstractmethod
    def put_bytes(self, address: S3Address, content: bytes) -> None:
        """Write a small object, replacing what is there."""

    @abstractmethod
    def put_if_absent(self, address: S3Address, content: bytes) -> bool:
        """Write a small object unless there is one; tell whether this call wrote it.

        False means that an object is there. It may be our own: where an answer got lost, a repeated request finds the
        first one's object. Read it back and compare.

        Raises:
            ConfigError: the store doesn't know conditional writes.
        """

    def read_bytes(self, address: S3Address, limit: int) -> bytes:
        """Read a small object.

        Args:
            address: the object.
            limit: most bytes it may have.

        Raises:
            DataError: it is larger than `limit`.
        """
        file = self.find_file(address)
        if file.size > limit:
            raise DataError(f"{address} ({file.size} bytes) must have at most {limit} bytes", "check what lies there.")
        return self.read_range(file, 0, file.size)

    @abstractmethod
    def read_range(self, file: RemoteFile, offset: int, length: int) -> bytes:
        """Read a part of an object, as of its listing; shorter at its end.

        Raises:
            DataError: the object changed since it was listed.
        """

    @abstractmethod
    def delete(self, address: S3Address) -> None:
        """Remove an object; nothing happens when there is none."""

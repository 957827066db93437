"""A store of plain folders, for a run on a laptop: `s3://bucket/key` is the file `<root>/bucket/key`.

What S3 promises holds here too: an object appears whole or not at all, a conditional write makes one winner, and an
object that changed since it was listed is not read. A link counts as what it leads to, as in the Hub's own cache; a
folder that is one is looked into only where an address names it, because links may go in circles.
"""

import contextlib
import errno
import hashlib
import os
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from finetune_api.artifacts import FileEntry, S3Address, is_safe_key
from finetune_api.errors import AccessDenied, ConfigError, DataError, ReferenceNotFound, StorageUnavailable
from finetune_trainer.storage import rooted
from finetune_trainer.storage.listing import Item, RemoteFile
from finetune_trainer.storage.store import Progress, Store

_CHUNK_BYTES = 4 * 2**20
_UNFINISHED = ".finetune-"
"""Begins the names of files that are being written."""


class FolderStore(Store):
    """Objects as files.

    Args:
        root: its folders are the buckets; they are made as needed.

    Raises:
        ConfigError: `root` is no folder.
    """

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise ConfigError(f"folder ({str(root)!r}) must exist to be a store", "make it, or name another one.")
        self._root = root

    def find_file(self, address: S3Address) -> RemoteFile:
        with _errors(address), self._path(address).open("rb") as stream:
            found = os.fstat(stream.fileno())
        return RemoteFile(address, address.key.rpartition("/")[2], found.st_size, _build_etag(found))

    def iterate_items(self, prefix: S3Address) -> Iterator[Item]:
        bucket = self._root / prefix.bucket
        if not bucket.is_dir():
            raise ReferenceNotFound(
                f"{prefix} must exist: there is no folder {str(bucket)!r}", "correct the bucket's name or make it."
            )
        with _errors(prefix):
            keys = []
            for folder, _, names in os.walk(bucket / prefix.key.rpartition("/")[0]):
                here = Path(folder).relative_to(bucket)
                found = [(here / name).as_posix() for name in names if not name.startswith(_UNFINISHED)]
                keys += [key for key in found if key.startswith(prefix.key)]
            for key in sorted(keys):
                status = (bucket / key).stat()
                yield Item(key, status.st_size, _build_etag(status))

    def fetch_files(self, files: Sequence[RemoteFile], root: Path, progress: Progress | None = None) -> list[FileEntry]:
        root.mkdir(parents=True, exist_ok=True)
        with rooted.open_folder(root) as root_fd:
            return [self._fetch(file, root_fd, progress) for file in files]

    def _fetch(self, file: RemoteFile, root_fd: int, progress: Progress | None) -> FileEntry:
        with (
            self._open(file) as source,
            rooted.disk_errors(file),
            rooted.open_below(root_fd, file.name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as target,
            open(target, "wb", closefd=False) as copy,
        ):
            return FileEntry(path=file.name, size=file.size, sha256=_copy(source, copy, progress))

    def upload_folder(self, root: Path, address: S3Address, progress: Progress | None = None) -> list[FileEntry]:
        entries = []
        for name in rooted.list_regular_files(root):
            with (root / name).open("rb") as source, self._replace(address.join(name)) as target:
                digest = _copy(source, target, progress)
                entries.append(FileEntry(path=name, size=target.tell(), sha256=digest))
        return entries

    def put_bytes(self, address: S3Address, content: bytes) -> None:
        with self._replace(address) as target:
            target.write(content)

    def put_if_absent(self, address: S3Address, content: bytes) -> bool:
        path = self._path(address)
        with _errors(address), _unfinished(path) as (target, unfinished):
            target.write(content)
            target.flush()
            try:
                # Whole or not at all, and never over another one: what O_EXCL promises of a file, with its content.
                os.link(unfinished, path)
            except FileExistsError:
                return False
        return True

    def read_range(self, file: RemoteFile, offset: int, length: int) -> bytes:
        with self._open(file) as source:
            source.seek(offset)
            return source.read(length)

    def delete(self, address: S3Address) -> None:
        with _errors(address):
            self._path(address).unlink(missing_ok=True)

    def _path(self, address: S3Address) -> Path:
        name = f"{address.bucket}/{address.key}"
        if not is_safe_key(name) or name.endswith("/"):
            raise ReferenceNotFound(f"{str(address)!r} must name an object", "correct the address.")
        return self._root / name

    @contextlib.contextmanager
    def _open(self, file: RemoteFile) -> Iterator[BinaryIO]:
        """Open an object, as it was listed, for reading; it must still be the same afterwards."""
        with _errors(file.address), self._path(file.address).open("rb") as source:
            _check_unchanged(source, file)
            yield source
            _check_unchanged(source, file)

    @contextlib.contextmanager
    def _replace(self, address: S3Address) -> Iterator[BinaryIO]:
        """Open what becomes an object once it is written whole."""
        path = self._path(address)
        with _errors(address), _unfinished(path) as (target, unfinished):
            yield target
            target.flush()
            os.replace(unfinished, path)


@contextlib.contextmanager
def _unfinished(path: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """Make a file beside `path` that nobody lists, and that is gone afterwards unless it was renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{_UNFINISHED}{uuid.uuid4().hex}")
    try:
        with unfinished.open("xb") as stream:
            yield stream, unfinished
    finally:
        unfinished.unlink(missing_ok=True)


@contextlib.contextmanager
def _errors(address: S3Address) -> Iterator[None]:
    """Say of errors of the disk what they mean for an object.

    Raises:
        ReferenceNotFound, AccessDenied, ConfigError, StorageUnavailable: as the disk answers.
    """
    try:
        yield
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise ReferenceNotFound(
            f"{address} must exist: there is no file {error.filename!r}", "correct the address."
        ) from error
    except PermissionError as error:
        raise AccessDenied(
            f"{address} must be open to this user: {error.filename!r} isn't", "correct the file's permissions."
        ) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ConfigError(f"{address} must fit on the disk, which is full", "make room.") from error
        raise StorageUnavailable(f"{address} must be served ({error.strerror})", "look at the disk.") from error


def _check_unchanged(source: BinaryIO, file: RemoteFile) -> None:
    if _build_etag(os.fstat(source.fileno())) != file.etag:
        raise DataError(f"{file.address} must not change while it is read", "start the job again when it is final.")


def _build_etag(status: os.stat_result) -> str:
    return f'"{status.st_ino}-{status.st_mtime_ns}-{status.st_size}"'


def _copy(source: BinaryIO, target: BinaryIO, progress: Progress | None) -> str:
    """Copy to the end; return the sha256 of what was copied."""
    sha256 = hashlib.sha256()
    while chunk := source.read(_CHUNK_BYTES):
        target.write(chunk)
        sha256.update(chunk)
        if progress is not None:
            progress(len(chunk))
    return sha256.hexdigest()

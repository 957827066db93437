"""Files below a root folder, opened so that no name and no link leads out of it, and what a full disk means."""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from finetune_api.artifacts import is_safe_key
from finetune_api.errors import ConfigError, DataError
from finetune_trainer.storage.listing import RemoteFile


@contextlib.contextmanager
def disk_errors(file: RemoteFile) -> Iterator[None]:
    """Say of errors of the disk what they mean for the object that is written.

    Raises:
        ConfigError: the disk is full.
        DataError: the object's key can't be a file's name.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ConfigError(
                f"spec.resources.scratch must hold {file.address} ({file.size} bytes): the disk is full",
                "raise spec.resources.scratch.",
            ) from error
        raise DataError(
            f"{file.address}: key must be usable as a file's name ({os.strerror(error.errno or 0)})",
            "rename the object.",
        ) from error


@contextlib.contextmanager
def open_folder(path: Path) -> Iterator[int]:
    """Open a folder, for `open_below`."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield folder
    finally:
        os.close(folder)


@contextlib.contextmanager
def open_below(root_fd: int, name: str, flags: int) -> Iterator[int]:
    """Open a file, following no link on the way; with `O_CREAT`, folders are made as needed.

    Raises:
        DataError: the name leads out of the root.
    """
    if not is_safe_key(name):
        raise DataError(
            f"key ({name!r}) must stay below its folder and hold no control characters", "rename the object."
        )
    *folders, last = name.split("/")
    with contextlib.ExitStack() as stack:
        parent = root_fd
        for folder in folders:
            if flags & os.O_CREAT:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(folder, dir_fd=parent)
            parent = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
            stack.callback(os.close, parent)
        target = os.open(last, os.O_NOFOLLOW | flags, 0o600, dir_fd=parent)
        stack.callback(os.close, target)
        yield target


def lay_out(file: RemoteFile, root_fd: int, content: bytes) -> None:
    """Make the file of an object in its whole size, with nothing but its first bytes in it.

    Raises:
        ConfigError: the disk is full.
        DataError: the object has a name that can't be a file.
    """
    with disk_errors(file), open_below(root_fd, file.name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as target:
        os.ftruncate(target, file.size)
        write(target, memoryview(content), 0)


def write(target: int, view: memoryview, offset: int) -> None:
    """Write all of `view` to a file from `offset` on."""
    while view:
        written = os.pwrite(target, view, offset)
        offset += written
        view = view[written:]


def list_regular_files(root: Path) -> list[str]:
    """Return the paths, relative to `root`, of the files below it, in order.

    Raises:
        DataError: a link, or a name keys can't have.
    """
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if not path.is_dir())
    for name in names:
        if not is_safe_key(name) or not stat.S_ISREG((root / name).lstat().st_mode):
            raise DataError(f"file ({name!r}) must be a regular file with a plain name", "remove or rename it.")
    return names

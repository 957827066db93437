"""Where things live that outlast a cluster: built binaries, images, package downloads.

Everything made from inputs lies under a digest of those inputs, so a changed input never meets an old result and an
unchanged one costs nothing. Locks are advisory file locks: they vanish with the process that holds them.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path


def cache_directory() -> Path:
    """Return the cache: `FINETUNE_CACHE`, or `finetune-operator` under the user's cache folder."""
    if chosen := os.environ.get("FINETUNE_CACHE"):
        return Path(chosen).absolute()
    user_cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(user_cache).absolute() / "finetune-operator"


def digest_of(parts: Iterable[bytes]) -> str:
    """Return 16 hexadecimal digits over `parts`, in which every part's length counts.

    64 bits: with a thousand entries the odds of a clash are below 1 in 10^13 (birthday bound).
    """
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def locked(name: str, *, shared: bool = False) -> Iterator[None]:
    """Hold the lock `name` of this cache, alone or with others that share it; who cannot have it now waits."""
    while True:
        with lock_path(name).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
            if not _is_current(name, file.fileno()):
                continue  # removed while we waited: who comes next would lock another file
            yield
            return


@contextlib.contextmanager
def locked_if_free(name: str) -> Iterator[bool]:
    """Hold the lock `name` alone and yield True, or yield False at once when somebody has it."""
    with lock_path(name).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _is_current(name: str, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), lock_path(name).stat())
    except FileNotFoundError:
        return False


def lock_path(name: str) -> Path:
    """Return the file behind the lock `name`."""
    directory = cache_directory() / "locks"
    directory.mkdir(parents=True, exist_ok=True)
    return directory / f"{name}.lock"

"""What an address stands for: one object, every object of a folder, or those a glob matches.

The same for every kind of store: it says what one object is and which keys begin with a prefix. Listings are bounded
and each name is checked before anything is fetched: a key that would leave its folder is refused.
"""

import fnmatch
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from finetune_api.artifacts import S3Address, is_safe_key
from finetune_api.errors import DataError, ReferenceNotFound

MAX_FILES = 10_000
"""Objects one address may stand for (a choice): more are a mistake in the address more often than an input."""
_WILDCARDS = "*?["


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """An object as it was listed; size and ETag pin it for the fetch."""

    address: S3Address
    name: str
    """Path relative to the folder that was listed, or the last segment of a single object's key."""
    size: int
    etag: str

    @property
    def suffix_name(self) -> str:
        """The last segment of the key, in lower case: what the format is told from."""
        return self.name.rpartition("/")[2].lower()


class Item(NamedTuple):
    """An object of a bucket, as a store lists it."""

    key: str
    size: int
    etag: str


class Index(Protocol):
    """What a listing asks a store."""

    def find_file(self, address: S3Address) -> RemoteFile:
        """Return one object, or raise ReferenceNotFound."""

    def iterate_items(self, prefix: S3Address) -> Iterable[Item]:
        """Yield the objects whose keys begin with a prefix's, in the order of their keys."""


def list_files(index: Index, address: S3Address) -> list[RemoteFile]:
    """Return the objects an address stands for, in the order of their names; never an empty list.

    A key that ends with `/`, or none at all, is a folder; one with `*`, `?` or `[` is a glob in which a wildcard does
    not reach over a `/`; any other is one object or, when there is none, a folder.

    Raises:
        ReferenceNotFound: the bucket is missing or nothing is there.
        DataError: too many objects, or a key that would leave the folder.
        AccessDenied: the credentials may not list or read here.
        StorageUnavailable: the store fails or can't be reached.
    """
    pattern = address.key
    if any(character in pattern for character in _WILDCARDS):
        return _list_matches(index, address)
    if pattern and not pattern.endswith("/"):
        try:
            return [index.find_file(address)]
        except ReferenceNotFound:
            # The answer to HEAD has no body, so it can't tell a missing bucket from a missing key: the listing can.
            return _list_folder(index, S3Address(address.bucket, f"{pattern}/"), address)
    return _list_folder(index, address, address)


def _list_folder(index: Index, folder: S3Address, asked: S3Address) -> list[RemoteFile]:
    found = list(_iterate(index, folder, folder.key))
    if not found:
        raise ReferenceNotFound(f"{asked} must exist: no object has this name or lies below it", "correct the address.")
    return found


def _list_matches(index: Index, address: S3Address) -> list[RemoteFile]:
    fixed = address.key[: min(address.key.index(character) for character in _WILDCARDS if character in address.key)]
    folder = fixed[: fixed.rfind("/") + 1]
    wanted = address.key[len(folder) :].split("/")
    found = [
        file
        for file in _iterate(index, S3Address(address.bucket, fixed), folder)
        if len(parts := file.name.split("/")) == len(wanted)
        and all(fnmatch.fnmatchcase(part, pattern) for part, pattern in zip(parts, wanted, strict=True))
    ]
    if not found:
        raise ReferenceNotFound(f"{address} must match an object: none does", "correct the pattern.")
    return found


def _iterate(index: Index, prefix: S3Address, folder: str) -> Iterator[RemoteFile]:
    """Yield the objects under a prefix; placeholders of folders, empty and ending with `/`, are left out."""
    count = 0
    for item in index.iterate_items(prefix):
        name = item.key[len(folder) :]
        if (not name or name.endswith("/")) and item.size == 0:
            continue
        count += 1
        if count > MAX_FILES:
            raise DataError(f"{prefix} must hold at most {MAX_FILES} objects", "name a smaller folder or a glob.")
        if not is_safe_key(name):
            raise DataError(
                f"{prefix}: key ({item.key!r}) must stay below its folder and hold no control characters",
                "rename the object.",
            )
        yield RemoteFile(S3Address(prefix.bucket, item.key), name, item.size, item.etag)

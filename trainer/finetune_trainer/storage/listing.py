"""What an address stands for: one object, every object of a folder, or those a glob matches.

Listings are bounded and each name is checked before anything is fetched: a key that would leave its folder is refused.
"""

import fnmatch
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from finetune_api.artifacts import S3Address, is_safe_key
from finetune_api.errors import DataError, FineTuneError, ReferenceNotFound, StorageUnavailable
from finetune_trainer.storage.connection import Connection

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import ListObjectsV2OutputTypeDef

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


def list_files(connection: Connection, address: S3Address) -> list[RemoteFile]:
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
        return _list_matches(connection, address)
    if pattern and not pattern.endswith("/"):
        try:
            return [find_file(connection, address)]
        except ReferenceNotFound:
            # The answer to HEAD has no body, so it can't tell a missing bucket from a missing key: the listing can.
            return _list_folder(connection, S3Address(address.bucket, f"{pattern}/"), address)
    return _list_folder(connection, address, address)


def find_file(connection: Connection, address: S3Address) -> RemoteFile:
    """Return one object.

    Raises:
        FineTuneError: as `list_files`.
    """
    client, bucket, key = connection.client, address.bucket, address.key
    try:
        answer = connection.call("HeadObject", address, lambda: client.head_object(Bucket=bucket, Key=key))
    except FineTuneError as error:
        if type(error) is FineTuneError:
            # A bare 400 stands for many things, and an answer to HEAD has no body that tells; one to GET has.
            connection.call("GetObject", address, lambda: client.get_object(Bucket=bucket, Key=key, Range="bytes=0-0"))
        raise
    return RemoteFile(address, address.key.rpartition("/")[2], answer["ContentLength"], answer["ETag"])


def check_size(connection: Connection, address: S3Address, size: int) -> None:
    """Check that an object that was uploaded has the size of what was sent.

    Raises:
        StorageUnavailable: it has another one.
        FineTuneError: as `list_files`.
    """
    arrived = find_file(connection, address)
    if arrived.size != size:
        raise StorageUnavailable(
            f"{address} ({arrived.size} bytes) must have the {size} bytes that were sent", "the run is tried again."
        )


def _list_folder(connection: Connection, folder: S3Address, asked: S3Address) -> list[RemoteFile]:
    found = list(_iterate(connection, folder, folder.key))
    if not found:
        raise ReferenceNotFound(f"{asked} must exist: no object has this name or lies below it", "correct the address.")
    return found


def _list_matches(connection: Connection, address: S3Address) -> list[RemoteFile]:
    fixed = address.key[: min(address.key.index(character) for character in _WILDCARDS if character in address.key)]
    folder = fixed[: fixed.rfind("/") + 1]
    wanted = address.key[len(folder) :].split("/")
    found = [
        file
        for file in _iterate(connection, S3Address(address.bucket, fixed), folder)
        if len(parts := file.name.split("/")) == len(wanted)
        and all(fnmatch.fnmatchcase(part, pattern) for part, pattern in zip(parts, wanted, strict=True))
    ]
    if not found:
        raise ReferenceNotFound(f"{address} must match an object: none does", "correct the pattern.")
    return found


def _iterate(connection: Connection, prefix: S3Address, folder: str) -> Iterator[RemoteFile]:
    """Yield the objects under a prefix; placeholders of folders, empty and ending with `/`, are left out."""
    token: str | None = None
    count = 0
    while True:
        page = connection.call("ListObjectsV2", prefix, functools.partial(_fetch_page, connection, prefix, token))
        for item in page.get("Contents", []):
            name = item["Key"][len(folder) :]
            if (not name or name.endswith("/")) and item["Size"] == 0:
                continue
            count += 1
            if count > MAX_FILES:
                raise DataError(f"{prefix} must hold at most {MAX_FILES} objects", "name a smaller folder or a glob.")
            if not is_safe_key(name):
                raise DataError(f"{prefix}: key ({item['Key']!r}) must stay below its folder", "rename the object.")
            yield RemoteFile(S3Address(prefix.bucket, item["Key"]), name, item["Size"], item["ETag"])
        token = page.get("NextContinuationToken")
        if not page.get("IsTruncated") or not token:
            return


def _fetch_page(connection: Connection, prefix: S3Address, token: str | None) -> "ListObjectsV2OutputTypeDef":
    if token is None:
        return connection.client.list_objects_v2(Bucket=prefix.bucket, Prefix=prefix.key)
    return connection.client.list_objects_v2(Bucket=prefix.bucket, Prefix=prefix.key, ContinuationToken=token)

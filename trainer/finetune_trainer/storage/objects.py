"""One object at a time, through boto: what it is, what lies under a prefix."""

import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING

from finetune_api.artifacts import S3Address
from finetune_api.errors import FineTuneError, StorageUnavailable
from finetune_trainer.storage.connection import Connection
from finetune_trainer.storage.listing import Item, RemoteFile

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import ListObjectsV2OutputTypeDef


def find_file(connection: Connection, address: S3Address) -> RemoteFile:
    """Return one object.

    Raises:
        FineTuneError: as the store answers.
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
        FineTuneError: as the store answers.
    """
    arrived = find_file(connection, address)
    if arrived.size != size:
        raise StorageUnavailable(
            f"{address} ({arrived.size} bytes) must have the {size} bytes that were sent", "the run is tried again."
        )


def iterate_items(connection: Connection, prefix: S3Address) -> Iterator[Item]:
    """Yield the objects under a prefix.

    Raises:
        FineTuneError: as the store answers.
    """
    token: str | None = None
    while True:
        page = connection.call("ListObjectsV2", prefix, functools.partial(_fetch_page, connection, prefix, token))
        for item in page.get("Contents", []):
            yield Item(item["Key"], item["Size"], item["ETag"])
        token = page.get("NextContinuationToken")
        if not page.get("IsTruncated") or not token:
            return


def _fetch_page(connection: Connection, prefix: S3Address, token: str | None) -> "ListObjectsV2OutputTypeDef":
    if token is None:
        return connection.client.list_objects_v2(Bucket=prefix.bucket, Prefix=prefix.key)
    return connection.client.list_objects_v2(Bucket=prefix.bucket, Prefix=prefix.key, ContinuationToken=token)

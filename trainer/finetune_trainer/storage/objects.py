"""One object at a time, through boto: what it is, what lies under a prefix."""

import functools
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

from finetune_api.artifacts import S3Address
from finetune_api.errors import FineTuneError, ReferenceNotFound, StorageUnavailable
from finetune_trainer.storage.connection import Connection
from finetune_trainer.storage.listing import Item, RemoteFile

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import ListObjectsV2OutputTypeDef

logger = logging.getLogger(__name__)


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


def check_size(connection: Connection, address: S3Address, size: int) -> RemoteFile:
    """Check that an object that was uploaded has the size of what was sent, and return it.

    Raises:
        StorageUnavailable: it has another one.
        FineTuneError: as the store answers.
    """
    try:
        arrived = find_file(connection, address)
    except ReferenceNotFound as error:
        raise StorageUnavailable(f"{address} must be there after its upload", "look at the store's log.") from error
    if arrived.size != size:
        raise StorageUnavailable(
            f"{address} ({arrived.size} bytes) must have the {size} bytes that were sent",
            "look at what lies between the pod and the store.",
        )
    return arrived


def abort_uploads(connection: Connection, address: S3Address) -> None:
    """Have the store forget the parts of unfinished uploads to an address, which it keeps and charges for.

    What fails is logged: whatever ended the upload matters more.
    """
    client, bucket, key = connection.client, address.bucket, address.key
    try:
        listed = connection.call(
            "ListMultipartUploads", address, lambda: client.list_multipart_uploads(Bucket=bucket, Prefix=key)
        )
        for upload in listed.get("Uploads", []):
            if upload["Key"] == key:
                connection.call(
                    "AbortMultipartUpload", address, functools.partial(_abort, connection, address, upload["UploadId"])
                )
    except FineTuneError as error:
        logger.warning("parts of %s may be left in the store: %s", address, error.message)


def _abort(connection: Connection, address: S3Address, upload_id: str) -> None:
    connection.client.abort_multipart_upload(Bucket=address.bucket, Key=address.key, UploadId=upload_id)


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

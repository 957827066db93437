"""One large file as a multipart upload: any thread sends any part, the one that sends the last part completes it.

Nothing is left behind: an upload that can't be completed is aborted, because a store keeps, and charges for, its parts.
"""

import logging
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from finetune_api.artifacts import S3Address
from finetune_api.errors import FineTuneError, ReferenceNotFound, StorageUnavailable
from finetune_trainer.storage import objects, transfer
from finetune_trainer.storage.connection import Connection

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef, UploadPartOutputTypeDef

logger = logging.getLogger(__name__)

PART_BYTES = 16 * 2**20
"""Of a part, and of the largest file that is sent whole (a choice): 16 of them in memory at a time are 256 MiB."""
_MAX_PARTS = 10_000
"""https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html"""


class MultipartUpload:
    """One file on its way.

    Args:
        connection: to the store.
        path: the local file, which must not change meanwhile.
        address: where it goes.
        size: bytes of the file.
    """

    def __init__(self, connection: Connection, path: Path, address: S3Address, size: int) -> None:
        self._connection = connection
        self._path = path
        self._address = address
        self._size = size
        self._part_bytes = max(PART_BYTES, -(-size // _MAX_PARTS))
        self._id: str | None = None
        self._is_complete = False
        self._parts: dict[int, CompletedPartTypeDef] = {}
        self._lock = threading.Lock()

    @property
    def num_parts(self) -> int:
        """How many parts there are."""
        return -(-self._size // self._part_bytes)

    def send(self, index: int) -> int:
        """Send a part, counted from 0; the last one to be sent also completes the object.

        Returns:
            Bytes of the part.

        Raises:
            FineTuneError: as the store answers; DataError when the file was shortened.
            StorageUnavailable: the object has another size than the file.
        """
        upload_id = self._begin()
        start = index * self._part_bytes
        content = transfer.read_part(self._path, start, min(self._part_bytes, self._size - start))
        client, address = self._connection.client, self._address
        answer = self._connection.call(
            "UploadPart",
            address,
            lambda: client.upload_part(
                Bucket=address.bucket,
                Key=address.key,
                UploadId=upload_id,
                PartNumber=index + 1,
                Body=content,  # type: ignore[arg-type]  # the stubs leave out bytearray, which boto documents
            ),
        )
        with self._lock:
            self._parts[index] = _describe_part(index, answer)
            is_last = len(self._parts) == self.num_parts
        if is_last:
            self._complete(upload_id)
        return len(content)

    def abort(self) -> None:
        """Have the store forget the parts, unless the object is complete; what fails is logged."""
        if self._id is None or self._is_complete:
            return
        client, address, upload_id = self._connection.client, self._address, self._id
        try:
            self._connection.call(
                "AbortMultipartUpload",
                address,
                lambda: client.abort_multipart_upload(Bucket=address.bucket, Key=address.key, UploadId=upload_id),
            )
        except FineTuneError as error:
            logger.warning("parts of %s are left in the store: %s", address, error.message)

    def _begin(self) -> str:
        with self._lock:
            if self._id is None:
                client, address = self._connection.client, self._address
                answer = self._connection.call(
                    "CreateMultipartUpload",
                    address,
                    lambda: client.create_multipart_upload(Bucket=address.bucket, Key=address.key),
                )
                self._id = answer["UploadId"]
            return self._id

    def _complete(self, upload_id: str) -> None:
        client, address = self._connection.client, self._address
        parts = [self._parts[index] for index in range(self.num_parts)]
        try:
            self._connection.call(
                "CompleteMultipartUpload",
                address,
                lambda: client.complete_multipart_upload(
                    Bucket=address.bucket, Key=address.key, UploadId=upload_id, MultipartUpload={"Parts": parts}
                ),
            )
        except ReferenceNotFound as error:
            # Boto repeats a request whose answer was lost; most stores know no upload that is complete already.
            logger.info("%s: %s; looking for the object", address, error.message)
        self._is_complete = True
        try:
            objects.check_size(self._connection, address, self._size)
        except ReferenceNotFound as error:
            raise StorageUnavailable(f"{address} must be there after its upload", "the run is tried again.") from error


def _describe_part(index: int, answer: "UploadPartOutputTypeDef") -> "CompletedPartTypeDef":
    # AWS wants the checksums of the parts back where boto sent some.
    checksums = {name: value for name, value in answer.items() if name.startswith("Checksum")}
    return {"PartNumber": index + 1, "ETag": answer["ETag"], **checksums}  # type: ignore[typeddict-item]

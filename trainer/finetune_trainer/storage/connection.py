"""The boto client of a run and the one place every request goes through: counted, timed out, classified.

A request is repeated by boto itself (mode `standard`), 10 times in all. The waits are random, at most 50 ms and then
twice as long each time: a refused connection ends after 13 s on average and 26 s at most. A store that says it is busy
is given up to 20 times as long. `AWS_MAX_ATTEMPTS` changes the number.

A body goes to boto as a `bytearray`: boto wraps `bytes` into a file, which it signs in pieces, asks about even where it
is tiny, and sends 16 KiB at a time, 65,536 times for a GiB.
"""

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from finetune_api.artifacts import S3Address
from finetune_api.errors import ConfigError
from finetune_api.kinds.storage import Storage
from finetune_trainer.storage import failures
from finetune_trainer.telemetry import prometheus

if TYPE_CHECKING:
    from botocore.awsrequest import AWSPreparedRequest
    from botocore.config import _RetryDict
    from mypy_boto3_s3 import S3Client

MAX_WORKERS = 16
"""Most connections at a time. Measured, 2026, two cores: more of them, each capped at 90 MB/s, bring nothing."""
_CONNECT_TIMEOUT_SECONDS = 5
_READ_TIMEOUT_SECONDS = 60
_MAX_ATTEMPTS = 10
_BLOCK_BYTES = 256 * 1024
"""Sent at a time. Each block has the connect timeout to leave, which allows for 50 kB/s over one connection."""

_Answer = TypeVar("_Answer")


class _Blocks:
    """A body that is sent in blocks. urllib3 iterates over it, boto rewinds it before it repeats a request."""

    def __init__(self, content: bytearray) -> None:
        self._content = content

    def __iter__(self) -> Iterator[memoryview]:
        view = memoryview(self._content)
        return (view[start : start + _BLOCK_BYTES] for start in range(0, len(view), _BLOCK_BYTES))

    def seek(self, _offset: int) -> None:
        """Do nothing: every iteration begins at the start."""


def _ask_first(params: dict[str, Any], **_: object) -> None:
    """Have the store asked whether it wants a body that is too large to be sent on the off chance."""
    if isinstance(body := params["body"], bytearray) and len(body) > _BLOCK_BYTES:
        params["headers"]["Expect"] = "100-continue"


def _send_in_blocks(request: "AWSPreparedRequest", **_: object) -> None:
    """Spare urllib3 from sending a body in one piece, for which all of it would have one timeout."""
    if isinstance(request.body, bytearray):
        request.body = _Blocks(request.body)  # type: ignore[assignment]  # urllib3 takes any iterable


def _build_retries() -> "_RetryDict":
    # What is given here wins over the variable, so it is given only where the variable is absent.
    if "AWS_MAX_ATTEMPTS" in os.environ:
        return {"mode": "standard"}
    return {"mode": "standard", "total_max_attempts": _MAX_ATTEMPTS}


class Connection:
    """One client and its settings.

    Args:
        storage: `spec.storage`; credentials come from the standard AWS variables or the pod's identity.

    Raises:
        ConfigError: boto refuses the settings.
    """

    def __init__(self, storage: Storage) -> None:
        own_endpoint = (
            storage.endpoint_url or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        )
        self.endpoint = own_endpoint or "AWS"
        # Several S3-compatible stores refuse the CRC headers that boto sends by default since 1.36.
        checksums: Literal["when_required", "when_supported"] = "when_required" if own_endpoint else "when_supported"
        config = Config(
            region_name=storage.region or None,
            connect_timeout=_CONNECT_TIMEOUT_SECONDS,
            read_timeout=_READ_TIMEOUT_SECONDS,
            max_pool_connections=MAX_WORKERS + 4,
            request_checksum_calculation=checksums,
            response_checksum_validation=checksums,
            retries=_build_retries(),
            # boto's own is put together anew for each request, which takes a sixth of its processor time.
            user_agent="finetune-trainer",
            s3={"addressing_style": storage.addressing_style.value},
        )
        try:
            # A session of our own: the default one is shared by the whole process and not thread-safe to set up.
            self.client: S3Client = boto3.session.Session().client("s3", endpoint_url=own_endpoint, config=config)
        except (ValueError, BotoCoreError) as error:
            raise ConfigError(
                f"spec.storage and the AWS variables must give a client for {self.endpoint}: {error}",
                "correct spec.storage or spec.trainer.env.",
            ) from error
        for operation in ("PutObject", "UploadPart"):
            self.client.meta.events.register(f"before-call.s3.{operation}", _ask_first)
            self.client.meta.events.register(f"before-send.s3.{operation}", _send_in_blocks)

    def call(self, operation: str, address: S3Address, request: Callable[[], _Answer]) -> _Answer:
        """Make one request, count it and turn what boto raises into our exceptions.

        Args:
            operation: S3's name of it, for the metrics.
            address: what it is about, for the message.
            request: makes the request.

        Raises:
            FineTuneError: any class `failures.classify` knows.
        """
        try:
            answer = request()
        except failures.S3Error as error:
            self._record(operation, "error", getattr(error, "response", None))
            raise failures.classify(error, str(address), self.endpoint) from error
        self._record(operation, "success", answer)
        return answer

    @staticmethod
    def _record(operation: str, result: str, answer: object) -> None:
        prometheus.record_s3_request(operation, result)
        if retries := failures.count_retries(answer):
            prometheus.record_s3_retry(retries)

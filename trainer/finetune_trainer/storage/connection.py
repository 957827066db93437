"""The boto client of a run and the one place every request goes through: counted, timed out, classified.

A request is repeated by boto itself (mode `standard`), 10 times in all. The waits are random, at most 50 ms and then
twice as long each time: a refused connection ends after 13 s on average and 26 s at most. A store that says it is busy
is given up to 20 times as long. `AWS_MAX_ATTEMPTS` changes the number.
"""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from finetune_api.artifacts import S3Address
from finetune_api.errors import ConfigError
from finetune_api.spec import Storage
from finetune_trainer import exporter
from finetune_trainer.storage import failures

if TYPE_CHECKING:
    from botocore.config import _RetryDict
    from mypy_boto3_s3 import S3Client

MAX_WORKERS = 16
"""Most connections at a time. Measured, 2026, two cores: more of them, each capped at 90 MB/s, bring nothing."""
_CONNECT_TIMEOUT_SECONDS = 5
_READ_TIMEOUT_SECONDS = 60
_MAX_ATTEMPTS = 10

_Answer = TypeVar("_Answer")


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
        exporter.record_s3_request(operation, result)
        if retries := failures.count_retries(answer):
            exporter.record_s3_retry(retries)

"""The boto client of a run and the one place every request goes through: counted, timed out, classified.

A request is repeated by boto itself (mode `standard`), 10 times in all. The waits are random, at most 50 ms and then
twice as long each time: a refused connection ends after 13 s on average and 26 s at most. A store that says it is busy
is given up to 20 times as long. `AWS_MAX_ATTEMPTS` changes the number, for obstore too.
"""

import functools
import os
import socket
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError
from botocore.httpsession import get_cert_path

from finetune_api.artifacts import S3Address
from finetune_api.errors import ConfigError, FineTuneError
from finetune_api.kinds.storage import AddressingStyle, Storage
from finetune_trainer.storage import bucket, credentials, failures
from finetune_trainer.telemetry import prometheus

if TYPE_CHECKING:
    from botocore.config import _RetryDict
    from mypy_boto3_s3 import S3Client
    from obstore.store import S3Store

MAX_REQUESTS = 16
"""Most requests at a time. Measured, 2026, two cores: more connections, each capped at 90 MB/s, bring nothing."""
_MAX_ATTEMPTS = 10
_STYLE_HINT = (
    "A store that has one host for all buckets needs spec.storage.addressingStyle: path; as it is, the bucket is put in"
    " front of the host."
)

_Answer = TypeVar("_Answer")


def _build_retries() -> "_RetryDict":
    # What is given here wins over the variable, so it is given only where the variable is absent.
    if "AWS_MAX_ATTEMPTS" in os.environ:
        return {"mode": "standard"}
    return {"mode": "standard", "total_max_attempts": _MAX_ATTEMPTS}


class Connection:
    """One client and its settings; safe to use from several threads.

    Args:
        storage: `spec.storage`; credentials come from the standard AWS variables or the pod's identity.

    Raises:
        ConfigError: the settings or the AWS variables can't work.
    """

    def __init__(self, storage: Storage) -> None:
        credentials.check_variables(storage)
        self._own_endpoint = (
            storage.endpoint_url or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None
        )
        self._is_virtual = storage.addressing_style is AddressingStyle.VIRTUAL
        # Several S3-compatible stores refuse the CRC headers that boto sends by default since 1.36.
        checksums: Literal["when_required", "when_supported"] = (
            "when_required" if self._own_endpoint else "when_supported"
        )
        config = Config(
            region_name=storage.region or None,
            signature_version="s3v4",
            connect_timeout=bucket.CONNECT_TIMEOUT.seconds,
            read_timeout=bucket.READ_TIMEOUT.seconds,
            max_pool_connections=MAX_REQUESTS,
            request_checksum_calculation=checksums,
            response_checksum_validation=checksums,
            retries=_build_retries(),
            s3={"addressing_style": storage.addressing_style.value, "us_east_1_regional_endpoint": "regional"},
        )
        try:
            # A session of our own: the default one is shared by the whole process and not thread-safe to set up.
            settings = botocore.session.get_session()
            self._session = boto3.session.Session(botocore_session=settings)
            self.client: S3Client = self._session.client("s3", endpoint_url=self._own_endpoint, config=config)
        except failures.CREDENTIAL_ERRORS as error:
            raise failures.classify(error, "the store", self._own_endpoint or "AWS") from None
        except (ValueError, BotoCoreError) as error:
            raise ConfigError(
                f"spec.storage and the AWS variables must give a client for {self._own_endpoint or 'AWS'}: {error}",
                "correct spec.storage or spec.trainer.env.",
            ) from error
        # An image may be without authorities of its own; boto brings some along.
        self._authorities = _read_bundle(str(get_cert_path(settings.get_config_variable("ca_bundle") or True)))
        self.open_for_fetch = functools.cache(functools.partial(self._open, is_for_upload=False))
        self.open_for_upload = functools.cache(functools.partial(self._open, is_for_upload=True))
        self._check_host = functools.cache(self._check_host_once)

    def call(self, operation: str, address: S3Address, request: Callable[[], _Answer]) -> _Answer:
        """Make one request, count it and turn what boto or obstore raises into our exceptions.

        Args:
            operation: S3's name of it, for the metrics.
            address: what it is about, for the message.
            request: makes the request.

        Raises:
            FineTuneError: any class `failures.classify` knows.
        """
        self._check_host(address.bucket)
        try:
            answer = request()
        except failures.S3Error as error:
            self.record(operation, "error", getattr(error, "response", None))
            raise self.explain(error, address) from None
        self.record(operation, "success", answer)
        return answer

    def explain(self, error: Exception, address: S3Address) -> FineTuneError:
        """Say what an exception of boto or obstore means for an address."""
        host = self._locate(address.bucket) or self._own_endpoint or "AWS"
        return failures.classify(error, str(address), host, _STYLE_HINT if self._puts_bucket_in_front(host) else "")

    def _open(self, name: str, *, is_for_upload: bool) -> "S3Store":
        """Open a bucket for obstore.

        Raises:
            FineTuneError: there are no credentials.
        """
        try:
            place = bucket.locate_bucket(self.client, name)
        except failures.S3Error as error:
            raise self.explain(error, S3Address(name, "")) from None
        return bucket.open_bucket(place, self._session, self.client, self._authorities, is_for_upload=is_for_upload)

    def _locate(self, name: str) -> str:
        """Return the URL that requests about a bucket go to; empty where boto can't say."""
        try:
            return bucket.locate_bucket(self.client, name).url
        except failures.S3Error:
            return ""

    def _puts_bucket_in_front(self, host: str) -> bool:
        return self._is_virtual and self._own_endpoint is not None and not host.startswith(self._own_endpoint)

    def _check_host_once(self, name: str) -> None:
        """Find out at once, not after ten tries, that a store has no host of its own for a bucket.

        Raises:
            ConfigError: the endpoint's host is known, the bucket's in front of it is not.
        """
        url = self._locate(name)
        if self._own_endpoint is None or not self._puts_bucket_in_front(url):
            return
        if url and not _is_known(url) and _is_known(self._own_endpoint):
            raise ConfigError(
                f"s3://{name} must be served by {url}, and no such host is known; {self._own_endpoint} is",
                _STYLE_HINT,
            )

    @staticmethod
    def record(operation: str, result: str, answer: object = None) -> None:
        """Count a request."""
        prometheus.record_s3_request(operation, result)
        if retries := failures.count_retries(answer):
            prometheus.record_s3_retry(retries)


def _read_bundle(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(
            f"AWS_CA_BUNDLE ({path!r}) must be a readable file: {error.strerror}",
            "mount the bundle, or correct the path.",
        ) from error


def _is_known(url: str) -> bool:
    """Tell whether the host of an address has a name that resolves; a name server that is down says nothing."""
    try:
        socket.getaddrinfo(urllib.parse.urlsplit(url).hostname, None)
    except socket.gaierror as error:
        return error.errno not in (socket.EAI_NONAME, socket.EAI_NODATA)
    return True

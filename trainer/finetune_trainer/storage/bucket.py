"""A bucket as boto sees it, opened for obstore, which moves large bodies: the same host, region, keys and authority.

Nothing is configured twice: boto is asked where it would send a request, with which region it would sign it and which
keys it has at that moment, so profiles, pod identities and endpoints work as they do for small objects.
"""

import datetime
import urllib.parse
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from obstore.auth.boto3 import Boto3CredentialProvider
from obstore.store import S3Store

if TYPE_CHECKING:
    import boto3
    from mypy_boto3_s3 import S3Client
    from obstore.store import S3Config

CONNECT_TIMEOUT = datetime.timedelta(seconds=5)
READ_TIMEOUT = datetime.timedelta(seconds=60)
"""Without a byte of an answer, before a request is repeated."""
_SEND_TIMEOUT = datetime.timedelta(minutes=5)
"""For a part to leave and be answered: allows for 0.5 MB/s over all connections (a choice)."""
_RETRY_TIMEOUT = datetime.timedelta(minutes=10)
"""Requests are repeated with the signature of the first try, which S3 takes for 15 minutes."""
_FIRST_PAUSE = datetime.timedelta(milliseconds=100)
_LONGEST_PAUSE = datetime.timedelta(seconds=4)
_CREDENTIALS_TTL = datetime.timedelta(minutes=9)
"""For how long obstore may sign with the keys that boto gave: boto renews those that expire within ten minutes."""
_PROBE_KEY = "k"


@dataclass(frozen=True, slots=True)
class Bucket:
    """Where a bucket is, as obstore wants it.

    Attributes:
        name: of the bucket.
        url: of the bucket; a key follows after a slash.
        region: that requests are signed for.
    """

    name: str
    url: str
    region: str


def locate_bucket(client: "S3Client", name: str) -> Bucket:
    """Ask boto where it would send a request, without one.

    Raises:
        BotoCoreError: no credentials, or a name that no bucket can have.
    """
    # The one public way to that answer; the signature in it is thrown away.
    signed = client.generate_presigned_url("get_object", Params={"Bucket": name, "Key": _PROBE_KEY})
    parts = urllib.parse.urlsplit(signed)
    (scope,) = urllib.parse.parse_qs(parts.query)["X-Amz-Credential"]  # key/date/region/s3/aws4_request
    url = f"{parts.scheme}://{parts.netloc}{parts.path.removesuffix(f'/{_PROBE_KEY}')}"
    return Bucket(name, url, scope.split("/")[-3])


def open_bucket(
    bucket: Bucket,
    session: "boto3.session.Session",
    client: "S3Client",
    authorities: bytes,
    *,
    is_for_upload: bool,
) -> S3Store:
    """Open a bucket for obstore.

    Args:
        bucket: where it is.
        session: gives the credentials.
        client: of boto, with the settings that hold for both.
        authorities: PEM of those that boto trusts; the system's come on top.
        is_for_upload: bodies are sent, rather than received.
    """
    settings: Any = client.meta.config  # the stubs leave out what follows
    # obstore reads variables too, some that boto doesn't know: what they could change is given here.
    config: S3Config = {
        "aws_endpoint_url_s3": bucket.url,
        "virtual_hosted_style_request": True,  # the bucket is part of the URL, wherever it stands in it
        "region": bucket.region,
        "skip_signature": False,
        "unsigned_payload": False,
    }
    if settings.request_checksum_calculation == "when_supported":
        config["checksum_algorithm"] = "SHA256"
    return S3Store(
        bucket.name,
        config=config,
        credential_provider=Boto3CredentialProvider(session, ttl=_CREDENTIALS_TTL),
        client_options={
            "allow_http": bucket.url.startswith("http://"),
            "connect_timeout": CONNECT_TIMEOUT,
            "read_timeout": _SEND_TIMEOUT if is_for_upload else READ_TIMEOUT,
            "timeout": datetime.timedelta(hours=1),  # of a whole request; the two above notice one that stands still
            "root_certificate": authorities,
        },
        retry_config={
            "max_retries": settings.retries["total_max_attempts"] - 1,
            "retry_timeout": _RETRY_TIMEOUT,
            "backoff": {"init_backoff": _FIRST_PAUSE, "max_backoff": _LONGEST_PAUSE, "base": 2},
        },
    )

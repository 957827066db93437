"""The cluster's S3 server as the demo and the cluster tests use it: buckets, uploads, reads.

The product never calls this; the trainer has its own access in `finetune_trainer.storage`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import boto3

from finetune_api.artifacts import parse_s3_uri
from finetune_devcluster import s3

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

BUCKETS = ("datasets", "models", "runs")
"""Inputs in the first two, results in the last."""


def connect(server: s3.S3Server) -> "S3Client":
    """Return the administrator's client."""
    return boto3.client(
        "s3",
        endpoint_url=server.endpoint_url,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        region_name="us-east-1",
    )


def make_buckets(client: "S3Client") -> None:
    """Create the buckets that are not there yet."""
    known = {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}
    for name in BUCKETS:
        if name not in known:
            client.create_bucket(Bucket=name)


def upload_files(client: "S3Client", files: Mapping[str, Path]) -> None:
    """Upload local files by `<bucket>/<key>`; one of the same size that is there already stays."""
    for address, path in files.items():
        bucket, _, key = address.partition("/")
        listed = client.list_objects_v2(Bucket=bucket, Prefix=key).get("Contents", [])
        if (key, path.stat().st_size) not in [(item["Key"], item["Size"]) for item in listed]:
            client.upload_file(str(path), bucket, key)


def upload_contents(client: "S3Client", bucket: str, contents: Mapping[str, bytes]) -> None:
    """Upload contents by key."""
    for key, content in contents.items():
        client.put_object(Bucket=bucket, Key=key, Body=content)


def list_keys(client: "S3Client", bucket: str, prefix: str) -> list[str]:
    """Return every key that begins with a prefix."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return [item["Key"] for page in pages for item in page.get("Contents", [])]


def read(client: "S3Client", uri: str) -> bytes:
    """Return the content of one object."""
    address = parse_s3_uri(uri)
    return client.get_object(Bucket=address.bucket, Key=address.key)["Body"].read()


def download(client: "S3Client", uri: str, folder: Path) -> None:
    """Copy everything below an address into a local folder."""
    address = parse_s3_uri(uri)
    for key in list_keys(client, address.bucket, address.key):
        target = folder / key.removeprefix(address.key)
        target.parent.mkdir(parents=True, exist_ok=True)
        client.download_file(address.bucket, key, str(target))

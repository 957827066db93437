"""The two commands of the AWS command line that the pages use, made of boto3: that program is no tool of a checkout.

As there, `sync` leaves out what is in the bucket already, and needs the bucket. Settings come from the AWS variables.
"""

import sys
from pathlib import Path

import boto3
from botocore.exceptions import ClientError


def main(arguments: list[str]) -> None:
    """Run `s3 mb s3://BUCKET` or `s3 sync FOLDER s3://BUCKET`."""
    client = boto3.client("s3", region_name="us-east-1")
    match arguments:
        case ["s3", "mb", target]:
            client.create_bucket(Bucket=parse_bucket(target))
        case ["s3", "sync", source, target]:
            sync_folder(client, Path(source), parse_bucket(target))
        case _:
            sys.exit(f"arguments ({' '.join(arguments)}) must be s3 mb or s3 sync with their addresses")


def parse_bucket(address: str) -> str:
    """Return the bucket of an address without a key."""
    assert address.startswith("s3://"), address
    return address.removeprefix("s3://")


def sync_folder(client: object, source: Path, bucket: str) -> None:
    """Upload the files of a folder that the bucket does not hold in the same size."""
    paths = [path for path in source.rglob("*") if path.is_file()]
    assert paths, f"{source} must hold files"
    for path in paths:
        key = path.relative_to(source).as_posix()
        try:
            size = client.head_object(Bucket=bucket, Key=key)["ContentLength"]  # type: ignore[attr-defined] # boto3
        except ClientError:
            size = None
        if size != path.stat().st_size:
            client.upload_file(str(path), bucket, key)  # type: ignore[attr-defined] # boto3


if __name__ == "__main__":
    main(sys.argv[1:])

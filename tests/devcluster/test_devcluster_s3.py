"""The S3 server does what the real one does in the things the trainer relies on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import pytest
from botocore.exceptions import ClientError

from finetune_devcluster import processes, s3

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


def connect(server: s3.S3Server, access_key: str, secret_key: str) -> S3Client:
    return boto3.client(
        "s3",
        endpoint_url=server.endpoint_url,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        region_name="us-east-1",
    )


@pytest.fixture
def admin(s3_server: s3.S3Server) -> S3Client:
    return connect(s3_server, s3_server.access_key, s3_server.secret_key)


def refusal(error: pytest.ExceptionInfo[ClientError]) -> str:
    return str(error.value.response.get("Error", {}).get("Code"))


def test_an_object_comes_back_as_it_was_put_whole_and_by_range(admin: S3Client) -> None:
    admin.create_bucket(Bucket="round-trip")
    admin.put_object(Bucket="round-trip", Key="a/b.bin", Body=b"0123456789")
    assert admin.get_object(Bucket="round-trip", Key="a/b.bin")["Body"].read() == b"0123456789"
    part = admin.get_object(Bucket="round-trip", Key="a/b.bin", Range="bytes=2-4")
    assert part["Body"].read() == b"234"


def test_a_conditional_put_refuses_to_replace_an_object(admin: S3Client) -> None:
    admin.create_bucket(Bucket="conditional")
    admin.put_object(Bucket="conditional", Key="lock", Body=b"first", IfNoneMatch="*")
    with pytest.raises(ClientError) as error:
        admin.put_object(Bucket="conditional", Key="lock", Body=b"second", IfNoneMatch="*")
    assert refusal(error) == "PreconditionFailed"
    assert admin.get_object(Bucket="conditional", Key="lock")["Body"].read() == b"first"


def test_wrong_credentials_are_refused(s3_server: s3.S3Server) -> None:
    with pytest.raises(ClientError) as error:
        connect(s3_server, s3_server.access_key, "wrong").list_buckets()
    assert refusal(error) == "SignatureDoesNotMatch"
    with pytest.raises(ClientError) as error:
        connect(s3_server, "unknown", "wrong").list_buckets()
    assert refusal(error) == "InvalidAccessKeyId"


def test_a_user_has_only_the_rights_given_to_it(s3_server: s3.S3Server, admin: S3Client) -> None:
    for bucket in ("allowed", "forbidden"):
        admin.create_bucket(Bucket=bucket)
        admin.put_object(Bucket=bucket, Key="x", Body=b"x")
    reader = s3_server.add_identity("reader-of-one", ["Read:allowed", "List:allowed"])
    client = connect(s3_server, reader.access_key, reader.secret_key)
    assert client.get_object(Bucket="allowed", Key="x")["Body"].read() == b"x"
    for attempt in (
        lambda: client.put_object(Bucket="allowed", Key="x", Body=b"y"),
        lambda: client.get_object(Bucket="forbidden", Key="x"),
    ):
        with pytest.raises(ClientError) as error:
            attempt()
        assert refusal(error) == "AccessDenied"


def test_secrets_stay_out_of_representations(s3_server: s3.S3Server) -> None:
    assert s3_server.secret_key not in repr(s3_server) + repr(s3_server.identities())


def test_a_stopped_server_leaves_no_process_and_no_socket(tmp_path: Path) -> None:
    with s3.start_s3(tmp_path) as server:
        (running,) = processes.ProcessGroup(tmp_path).load()
        assert processes.is_running(running)
        assert s3.sockets(tmp_path)
    assert not processes.is_running(running)
    assert not s3.sockets(server.directory)

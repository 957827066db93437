"""A bench for the storage and prepare tests: a bucket of its own on the real S3 server, and run configurations."""

import functools
import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import boto3
import pytest

from finetune_api.artifacts import FileEntry, S3Address
from finetune_api.errors import Interrupted
from finetune_api.kinds.storage import AddressingStyle, Storage
from finetune_api.run import RunConfig

BUCKET = "bench"

_numbers = itertools.count(1)


@functools.lru_cache(maxsize=1)
def _connect(server: Any) -> Any:
    client = boto3.client(
        "s3",
        endpoint_url=server.endpoint_url,
        region_name="us-east-1",
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
    )
    # One for all tests: the first write to a bucket takes the server half a second.
    client.create_bucket(Bucket=BUCKET)
    return client


class PrepareBench:
    """A folder in a bucket, and whoever may use it."""

    def __init__(self, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.server = server
        self.monkeypatch = monkeypatch
        self.endpoint_url: str = server.endpoint_url
        self.style = AddressingStyle.PATH
        self.client = _connect(server)
        self.bucket = BUCKET
        self.folder = f"bench-{next(_numbers)}/"
        self.use_keys(server.access_key, server.secret_key)
        # Two tries instead of six: enough to see that there is a second one.
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("FINETUNE_METRICS_PORT", "0")

    def use_keys(self, access_key: str, secret_key: str) -> None:
        """Be another user from now on."""
        self.monkeypatch.setenv("AWS_ACCESS_KEY_ID", access_key)
        self.monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret_key)

    @property
    def storage(self) -> Storage:
        return Storage(endpoint_url=self.endpoint_url, addressing_style=self.style)

    def address(self, key: str) -> S3Address:
        return S3Address(self.bucket, self.folder + key)

    def uri(self, key: str) -> str:
        return str(self.address(key))

    def put(self, key: str, content: bytes | str | Sequence[Mapping[str, Any]]) -> str:
        """Write an object, rows as JSON lines; return its address."""
        if not isinstance(content, bytes | str):
            content = write_jsonl(content)
        body = content.encode() if isinstance(content, str) else content
        self.client.put_object(Bucket=self.bucket, Key=self.folder + key, Body=body)
        return self.uri(key)

    def put_model(self, folder: Path) -> str:
        """Upload a model's folder, once for all tests; return its address."""
        key = f"models/{folder.parent.name}-{folder.name}/"
        if "Contents" not in self.client.list_objects_v2(Bucket=self.bucket, Prefix=key):
            for path in folder.iterdir():
                self.client.upload_file(str(path), self.bucket, f"{key}{path.name}")
        return f"s3://{self.bucket}/{key}"

    def get(self, key: str) -> bytes:
        return bytes(self.client.get_object(Bucket=self.bucket, Key=self.folder + key)["Body"].read())

    def list_keys(self, prefix: str = "") -> list[str]:
        found = self.client.list_objects_v2(Bucket=self.bucket, Prefix=self.folder + prefix).get("Contents", [])
        return [item["Key"].removeprefix(self.folder) for item in found]

    def build_config(self, **spec: Any) -> RunConfig:
        """Return the configuration of a prepare stage on this bucket."""
        whole = {
            "output": {"uri": self.uri("out")},
            "storage": self.storage.model_dump(mode="json"),
            "resources": {"gpus": 0, "memory": "4Gi"},
            **spec,
        }
        return RunConfig.model_validate(
            {
                "job": {"namespace": "demo", "name": "job", "uid": "uid-1", "attempt": 1},
                "stage": "prepare",
                "image": "trainer:1",
                "spec": whole,
            }
        )


def write_jsonl(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as JSON lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def make_reviews(count: int) -> list[dict[str, Any]]:
    """Return labelled sentences, every second one positive, no two alike."""
    endings = ("a warm and funny story", "dull and far too long")
    return [
        {"text": f"film {index} is {endings[index % 2]}", "label": ("positive", "negative")[index % 2]}
        for index in range(count)
    ]


def make_entry(path: str, content: bytes) -> FileEntry:
    """Describe a content as the store describes a file."""
    return FileEntry(path=path, size=len(content), sha256=hashlib.sha256(content).hexdigest())


def interrupt(_num_bytes: int) -> None:
    """Be the progress of a transfer that a signal ends."""
    raise Interrupted("a signal interrupted the test", "nothing")

"""S3 transfers of the trainer against boto3's defaults and against a plain copy over loopback.

Ours are calls of `finetune_trainer.storage.Store`, as the stages make them, with the sha256 of every file. The servers
are processes of their own on loopback: `loopback_s3`, which costs little, for large files; SeaweedFS, a real
S3 server, for small ones, where the work of a server is what a client waits for. Files lie in memory (tmpfs). The arms
take turns in every round. Correctness first: whatever any arm moved has the sha256 of its source.
"""

import contextlib
import hashlib
import os
import random
import shutil
import socket
import statistics
import tempfile
import time
import types
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import boto3
import loopback_s3
from recording import Result, record

from finetune_api.artifacts import S3Address
from finetune_api.kinds.storage import AddressingStyle, Storage
from finetune_devcluster import s3
from finetune_trainer.storage import Store, digest, open_store

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

ROUNDS = 3
NUM_LARGE, LARGE_BYTES = 4, 256 * 2**20
NUM_SMALL, SMALL_BYTES = 2000, 20_000
CAP_MB = 90
BUCKET = "bench"
_COPY_BYTES = 4 * 2**20


@dataclass
class Bench:
    """Files, servers and what was measured."""

    folder: Path
    fast: tuple[str, int]
    capped: tuple[str, int]
    sink: tuple[str, int]
    seaweed: s3.S3Server
    seconds: dict[str, list[float]] = field(default_factory=dict)
    cpu_seconds: dict[str, list[float]] = field(default_factory=dict)

    @property
    def large(self) -> Path:
        return self.folder / "objects" / BUCKET / "large"

    @property
    def small(self) -> Path:
        return self.folder / "small"

    @property
    def got(self) -> Path:
        return self.folder / "got"

    def clock(self, name: str, arm: Callable[[], object]) -> None:
        """Run an arm once, with nothing of an earlier one left, and note what it took."""
        shutil.rmtree(self.got, ignore_errors=True)
        self.got.mkdir()
        cpu, wall = time.process_time(), time.perf_counter()
        arm()
        self.seconds.setdefault(name, []).append(time.perf_counter() - wall)
        self.cpu_seconds.setdefault(name, []).append(time.process_time() - cpu)

    def rate(self, name: str, num_bytes: int = NUM_LARGE * LARGE_BYTES) -> float:
        """Return the median rate of an arm in MB/s."""
        return num_bytes / 1e6 / statistics.median(self.seconds[name])


def _build_files(folder: Path) -> None:
    for count, size, target in (
        (NUM_LARGE, LARGE_BYTES, folder / "objects" / BUCKET / "large"),
        (NUM_SMALL, SMALL_BYTES, folder / "small"),
    ):
        target.mkdir(parents=True)
        for number in range(count):
            source = random.Random(number)  # noqa: S311 - the same bytes in every run
            with (target / f"{number:04}").open("wb") as stream:
                for start in range(0, size, 2**20):
                    stream.write(source.randbytes(min(2**20, size - start)))


def _hash_folder(folder: Path) -> dict[str, str]:
    def hash_file(path: Path) -> str:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    paths = sorted(folder.iterdir())
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip((path.name for path in paths), pool.map(hash_file, paths), strict=True))


def _open_store(address: tuple[str, int] | s3.S3Server) -> Store:
    return open_store(Storage(endpoint_url=_build_url(address), addressing_style=AddressingStyle.PATH))


def _open_boto(address: tuple[str, int] | s3.S3Server) -> "S3Client":
    return boto3.client("s3", endpoint_url=_build_url(address))


def _build_url(address: tuple[str, int] | s3.S3Server) -> str:
    return address.endpoint_url if isinstance(address, s3.S3Server) else f"http://{address[0]}:{address[1]}"


def _copy_raw(address: tuple[str, int], folder: Path, names: list[str]) -> None:
    """Copy files from a socket each, at the same time: 4 MiB from the socket, 4 MiB into the file."""

    def copy(name: str) -> None:
        buffer = memoryview(bytearray(_COPY_BYTES))
        with socket.create_connection(address) as connection, (folder / name).open("wb", buffering=0) as target:
            connection.sendall(f"RAW {BUCKET}/large/{name}\r\n\r\n".encode())
            left = LARGE_BYTES
            while left:
                count = connection.recv_into(buffer[: min(left, _COPY_BYTES)], 0, socket.MSG_WAITALL)
                target.write(buffer[:count])
                left -= count

    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(copy, names))


@contextlib.contextmanager
def _without_hashing() -> Iterator[None]:
    """Leave the sha256 out of our downloads, which nothing but this program can."""
    nothing = types.SimpleNamespace(update=lambda _: None, hexdigest=lambda: "0" * 64)
    with mock.patch.object(digest, "hashlib", types.SimpleNamespace(sha256=lambda: nothing)):
        yield


def _build_pulls(bench: Bench) -> dict[str, Callable[[], object]]:
    store, capped, boto = _open_store(bench.fast), _open_store(bench.capped), _open_boto(bench.fast)
    names = [f"{number:04}" for number in range(NUM_LARGE)]
    address = S3Address(BUCKET, "large/")

    def pull_unhashed(source: Store) -> None:
        with _without_hashing():
            source.fetch_folder(address, bench.got)

    def pull_boto() -> None:
        for name in names:
            boto.download_file(BUCKET, f"large/{name}", str(bench.got / name))

    def copy_then_hash() -> None:
        _copy_raw(bench.fast, bench.got, names)
        _hash_folder(bench.got)

    return {
        "raw": lambda: _copy_raw(bench.fast, bench.got, names),
        "pull": lambda: store.fetch_folder(address, bench.got),
        "pull unhashed": lambda: pull_unhashed(store),
        "raw hashed": copy_then_hash,
        "pull boto3": pull_boto,
        "pull capped": lambda: capped.fetch_folder(address, bench.got),
        "pull capped unhashed": lambda: pull_unhashed(capped),
        "raw capped": lambda: _copy_raw(bench.capped, bench.got, names[:1]),
    }


def _build_pushes(bench: Bench, sink: tuple[str, int], run: str) -> dict[str, Callable[[], object]]:
    store, boto = _open_store(sink), _open_boto(sink)
    small_store, small_boto = _open_store(bench.seaweed), _open_boto(bench.seaweed)

    def push_boto(client: "S3Client", folder: Path, key: str) -> None:
        for path in sorted(folder.iterdir()):
            client.upload_file(str(path), BUCKET, f"{key}/{path.name}")

    return {
        "push": lambda: store.upload_folder(bench.large, S3Address(BUCKET, f"ours-{run}/")),
        "push boto3": lambda: push_boto(boto, bench.large, f"boto3-{run}"),
        "push small": lambda: small_store.upload_folder(bench.small, S3Address(BUCKET, f"ours-{run}/")),
        "push small boto3": lambda: push_boto(small_boto, bench.small, f"boto3-{run}"),
    }


def _check(bench: Bench) -> None:
    """Run every arm once and compare what arrived, and what ours says arrived, with the sources."""
    large, small = _hash_folder(bench.large), _hash_folder(bench.small)
    for name, arm in _build_pulls(bench).items():
        bench.clock(name, arm)
        arrived = _hash_folder(bench.got)
        assert arrived == (large if len(arrived) > 1 else {"0000": large["0000"]}), name
    entries = _open_store(bench.fast).fetch_folder(S3Address(BUCKET, "large/"), bench.got)
    assert {entry.path: entry.sha256 for entry in entries} == large
    with loopback_s3.start(bench.folder / "kept", keep=True) as keeping:
        for arm in _build_pushes(bench, keeping, "check").values():
            arm()
    for who in ("ours", "boto3"):
        assert _hash_folder(bench.folder / "kept" / BUCKET / f"{who}-check") == large, who
        shutil.rmtree(bench.got)
        _open_store(bench.seaweed).fetch_folder(S3Address(BUCKET, f"{who}-check/"), bench.got)
        assert _hash_folder(bench.got) == small, who
    shutil.rmtree(bench.folder / "kept")
    bench.seconds.clear()
    bench.cpu_seconds.clear()


def _measure(bench: Bench) -> list[Result]:
    for number in range(ROUNDS):
        for name, arm in (_build_pulls(bench) | _build_pushes(bench, bench.sink, str(number))).items():
            bench.clock(name, arm)
    rate, pull = bench.rate, "pull 1 GiB with sha256"
    small_bytes = NUM_SMALL * SMALL_BYTES
    cpu = {name: statistics.median(seconds) for name, seconds in bench.cpu_seconds.items()}
    small_push = "push 2,000 files of 20 kB to SeaweedFS"
    return [
        Result(f"{pull}, against a raw copy", rate("pull"), rate("raw"), "MB/s", 0.85, True),
        Result("the same without sha256", rate("pull unhashed"), rate("raw"), "MB/s", 0.85, True),
        Result("the same without sha256, processor time", cpu["pull unhashed"], cpu["raw"], "CPU-s", 1.18),
        Result(f"{pull}, against a raw copy hashed afterwards", rate("pull"), rate("raw hashed"), "MB/s", 0.85, True),
        Result(f"{pull}, against boto3", rate("pull"), rate("pull boto3"), "MB/s", 2.0, True),
        Result("the same without sha256", rate("pull unhashed"), rate("pull boto3"), "MB/s", 2.0, True),
        Result("the same without sha256, processor time", cpu["pull unhashed"], cpu["pull boto3"], "CPU-s", 0.5),
        Result(
            f"{pull}, {CAP_MB} MB/s a connection, against one",
            rate("pull capped"),
            rate("raw capped", LARGE_BYTES),
            "MB/s",
            10.0,
            True,
        ),
        Result(
            "the same without sha256", rate("pull capped unhashed"), rate("raw capped", LARGE_BYTES), "MB/s", 10.0, True
        ),
        Result("push 1 GiB with sha256, against boto3", rate("push"), rate("push boto3"), "MB/s", 1.0, True),
        Result("the same, processor time", cpu["push"], cpu["push boto3"], "CPU-s", 1.0),
        Result(
            f"{small_push}, against boto3",
            rate("push small", small_bytes),
            rate("push small boto3", small_bytes),
            "MB/s",
            4.0,
            True,
        ),
        Result("the same, processor time", cpu["push small"], cpu["push small boto3"], "CPU-s", 0.25),
    ]


def main() -> None:
    """Measure and record."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/dev/shm")))
        _build_files(folder)
        objects = folder / "objects"
        seaweed = stack.enter_context(s3.start_s3(folder / "seaweed"))
        os.environ |= {
            "AWS_ACCESS_KEY_ID": seaweed.access_key,
            "AWS_SECRET_ACCESS_KEY": seaweed.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        _open_boto(seaweed).create_bucket(Bucket=BUCKET)
        bench = Bench(
            folder,
            fast=stack.enter_context(loopback_s3.start(objects)),
            capped=stack.enter_context(loopback_s3.start(objects, cap_mb=CAP_MB)),
            sink=stack.enter_context(loopback_s3.start(folder / "sink")),
            seaweed=seaweed,
        )
        _check(bench)
        results = _measure(bench)
    record("s3", results, ("boto3", "botocore", "urllib3"))


if __name__ == "__main__":
    main()

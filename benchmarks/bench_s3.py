"""S3 transfers of the trainer against boto3, as it is and tuned, and against a plain copy over loopback.

Ours are calls of `finetune_trainer.storage.Store`, as the stages make them, with the sha256 of every file; the peers
hash what they moved with as many threads as there are cores, afterwards or before. The servers are processes of their
own on loopback: `loopback_s3`, which costs little, for large files; SeaweedFS, a real S3 server, for small ones, where
the work of a server is what a client waits for. Files lie in memory (tmpfs). The arms take turns in every round.
Correctness first: whatever any arm moved has the sha256 of its source.
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
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import loopback_s3
from boto3.s3.transfer import TransferConfig
from recording import Result, record

from finetune_api.artifacts import S3Address
from finetune_api.kinds.storage import AddressingStyle, Storage
from finetune_devcluster import s3
from finetune_trainer.storage import Store, open_store

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

ROUNDS = 3
NUM_LARGE, LARGE_BYTES = 4, 256 * 2**20
NUM_SMALL, SMALL_BYTES = 2000, 20_000
CAP_MB = 90
BUCKET = "bench"
_COPY_BYTES = 4 * 2**20
_MIB = 2**20
DEFAULT = TransferConfig()
TUNED = TransferConfig(multipart_threshold=32 * _MIB, multipart_chunksize=32 * _MIB)
"""What its documentation advises for large files: larger parts."""
EXPERT = TransferConfig(multipart_threshold=32 * _MIB, multipart_chunksize=32 * _MIB, io_chunksize=4 * _MIB)
"""Larger reads from the socket besides, the least known of its settings and the one that matters here."""
PUSH_THREADS = 16


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


def _build_pulls(bench: Bench) -> dict[str, Callable[[], object]]:
    names = [f"{number:04}" for number in range(NUM_LARGE)]

    def pull_ours(server: tuple[str, int]) -> Callable[[], object]:
        store = _open_store(server)
        return lambda: store.fetch_folder(S3Address(BUCKET, "large/"), bench.got)

    def pull_boto(server: tuple[str, int], config: TransferConfig) -> Callable[[], object]:
        boto = _open_boto(server)

        def pull() -> None:
            for name in names:
                boto.download_file(BUCKET, f"large/{name}", str(bench.got / name), Config=config)
            _hash_folder(bench.got)

        return pull

    def copy_then_hash() -> None:
        _copy_raw(bench.fast, bench.got, names)
        _hash_folder(bench.got)

    return {
        "pull": pull_ours(bench.fast),
        "raw hashed": copy_then_hash,
        "pull boto3": pull_boto(bench.fast, DEFAULT),
        "pull tuned": pull_boto(bench.fast, TUNED),
        "pull expert": pull_boto(bench.fast, EXPERT),
        "pull capped": pull_ours(bench.capped),
        "pull capped tuned": pull_boto(bench.capped, TUNED),
        "pull capped expert": pull_boto(bench.capped, EXPERT),
    }


def _build_pushes(bench: Bench, sink: tuple[str, int], run: str) -> dict[str, Callable[[], object]]:
    store, boto = _open_store(sink), _open_boto(sink)
    small_store, small_boto = _open_store(bench.seaweed), _open_boto(bench.seaweed)

    def push_boto(client: "S3Client", folder: Path, who: str, config: TransferConfig, threads: int = 1) -> None:
        _hash_folder(folder)
        with ThreadPoolExecutor(threads) as pool:
            sent = [
                pool.submit(client.upload_file, str(path), BUCKET, f"{who}-{run}/{path.name}", Config=config)
                for path in sorted(folder.iterdir())
            ]
            for upload in sent:
                upload.result()

    return {
        "push": lambda: store.upload_folder(bench.large, S3Address(BUCKET, f"ours-{run}/")),
        "push boto3": lambda: push_boto(boto, bench.large, "boto3", DEFAULT),
        "push tuned": lambda: push_boto(boto, bench.large, "tuned", TUNED),
        "push small": lambda: small_store.upload_folder(bench.small, S3Address(BUCKET, f"ours-{run}/")),
        "push small boto3": lambda: push_boto(small_boto, bench.small, "boto3", DEFAULT),
        "push small tuned": lambda: push_boto(small_boto, bench.small, "tuned", DEFAULT, PUSH_THREADS),
    }


def _check(bench: Bench) -> None:
    """Run every arm once and compare what arrived, and what ours says arrived, with the sources."""
    large, small = _hash_folder(bench.large), _hash_folder(bench.small)
    for name, arm in _build_pulls(bench).items():
        bench.clock(name, arm)
        arrived = _hash_folder(bench.got)
        assert arrived == large, name
    entries = _open_store(bench.fast).fetch_folder(S3Address(BUCKET, "large/"), bench.got)
    assert {entry.path: entry.sha256 for entry in entries} == large
    with loopback_s3.start(bench.folder / "kept", keep=True) as keeping:
        for arm in _build_pushes(bench, keeping, "check").values():
            arm()
    for who in ("ours", "boto3", "tuned"):
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
    small_bytes = NUM_SMALL * SMALL_BYTES
    cpu = {name: statistics.median(seconds) for name, seconds in bench.cpu_seconds.items()}

    def compare(name: str, ours: str, peer: str, goal: float, num_bytes: int = NUM_LARGE * LARGE_BYTES) -> list[Result]:
        """Compare rates and, turned over, processor time."""
        rates = Result(name, bench.rate(ours, num_bytes), bench.rate(peer, num_bytes), "MB/s", goal, is_minimum=True)
        return [rates, Result("the same, processor time", cpu[ours], cpu[peer], "CPU-s", float(f"{1 / goal:.2g}"))]

    pull, capped = "pull 1 GiB with sha256", f"pull 1 GiB with sha256, {CAP_MB} MB/s a connection"
    push, small = "push 1 GiB with sha256", "push 2,000 files of 20 kB to SeaweedFS"
    return [
        *compare(f"{pull}, against a raw copy hashed afterwards", "pull", "raw hashed", 0.85),
        *compare(f"{pull}, against boto3", "pull", "pull boto3", 1.5),
        *compare(f"{pull}, against boto3 with parts of 32 MiB", "pull", "pull tuned", 1.5),
        *compare(f"{pull}, against boto3 with reads of 4 MiB besides", "pull", "pull expert", 1.0),
        *compare(f"{capped}, against boto3 with parts of 32 MiB", "pull capped", "pull capped tuned", 1.5),
        *compare(f"{capped}, against boto3 with reads of 4 MiB besides", "pull capped", "pull capped expert", 1.0),
        *compare(f"{push}, against boto3", "push", "push boto3", 1.0),
        *compare(f"{push}, against boto3 with parts of 32 MiB", "push", "push tuned", 1.0),
        *compare(f"{small}, against boto3", "push small", "push small boto3", 4.0, small_bytes),
        *compare(f"{small}, against boto3 in 16 threads", "push small", "push small tuned", 1.0, small_bytes),
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
    record("s3", results, ("obstore", "boto3", "botocore"))


if __name__ == "__main__":
    main()

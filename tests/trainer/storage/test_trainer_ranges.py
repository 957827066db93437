"""What a download asks for next, over how many connections, and the digest of what arrives in any order."""

import hashlib
import itertools
import os
import random
from pathlib import Path

import pytest

from finetune_api.artifacts import S3Address
from finetune_api.errors import StorageUnavailable
from finetune_trainer.storage import RemoteFile
from finetune_trainer.storage.digest import ArrivingDigest
from finetune_trainer.storage.ranges import Pace, RangePlan, Traffic

MIB = 2**20


def make_files(*sizes: int) -> list[RemoteFile]:
    return [RemoteFile(S3Address("b", str(index)), str(index), size, "") for index, size in enumerate(sizes)]


def claim_all(plan: RangePlan, workers: int) -> list[tuple[int, int, int]]:
    """Let workers claim in turns until nothing is left; return index, start and end of each claim."""
    claimed = []
    last: list[int | None] = [None] * workers
    for worker in itertools.cycle(range(workers)):
        if (found := plan.claim(last[worker], workers)) is None:
            return claimed
        last[worker] = found[0]
        claimed.append((found[0], found[1].start, found[1].end))
    raise AssertionError


@pytest.mark.parametrize("workers", [1, 4, 16])
@pytest.mark.parametrize("sizes", [(), (0,), (1,), (300 * MIB + 1, 0, 5, 20 * MIB)])
def test_every_byte_is_handed_out_once(sizes: tuple[int, ...], workers: int) -> None:
    claimed = claim_all(RangePlan(make_files(*sizes)), workers)
    for index, size in enumerate(sizes):
        own = sorted((start, end) for number, start, end in claimed if number == index)
        assert [start for start, _ in own] == [0, *(end for _, end in own)][: len(own)]
        assert sum(end - start for start, end in own) == size


def test_few_connections_keep_to_a_file_each_and_read_it_in_order() -> None:
    claimed = claim_all(RangePlan(make_files(*[256 * MIB] * 4)), 4)
    assert claimed[:4] == [(index, 0, 64 * MIB) for index in range(4)]
    assert claimed[4:6] == [(index, 64 * MIB, 128 * MIB) for index in range(2)]


def test_ranges_get_smaller_with_more_connections_and_towards_the_end() -> None:
    def get_sizes(workers: int) -> list[int]:
        return [end - start for _, start, end in claim_all(RangePlan(make_files(1024 * MIB)), workers)]

    few, many = get_sizes(4), get_sizes(16)
    assert (few[0], many[0]) == (64 * MIB, 32 * MIB)
    assert few == sorted(few, reverse=True)
    assert few[-2] == many[-2] == 8 * MIB


PACES = [
    pytest.param([0], [4], id="where data waits they stay few"),
    pytest.param([9, 9], [16, 16], id="where it is waited for there are all"),
    pytest.param([4, 5], [4, 16], id="half of the chunks decide"),
    pytest.param([0, 9], [4, 16], id="a fast store that becomes slow"),
    pytest.param([9, 0], [16, 16], id="they never get fewer"),
]


@pytest.mark.parametrize(("windows", "want"), PACES)
def test_connections_are_added_once_most_chunks_are_waited_for(windows: list[int], want: list[int]) -> None:
    pace = Pace()
    assert [pace.adapt(Traffic(9, num_late)) for num_late in windows] == want


@pytest.mark.parametrize("seed", range(5))
def test_chunks_in_any_order_give_the_digest_of_the_file(tmp_path: Path, seed: int) -> None:
    content = os.urandom(3 * MIB)
    (tmp_path / "file").write_bytes(content)
    starts = list(range(0, len(content), 100_000))
    if seed:
        random.Random(seed).shuffle(starts)
    digest, num_catch_ups = ArrivingDigest("a file"), 0
    with (tmp_path / "file").open("rb") as stream:
        for start in starts:
            if digest.add(start, memoryview(content)[start : start + 100_000]):
                digest.catch_up(stream.fileno())
                num_catch_ups += 1
    assert digest.hexdigest() == hashlib.sha256(content).hexdigest()
    assert (num_catch_ups > 0) == (seed > 0)


def test_a_file_that_somebody_shortens_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"01")
    digest = ArrivingDigest("a file")
    assert not digest.add(2, memoryview(b"23"))
    assert digest.add(0, memoryview(b"01"))
    with (tmp_path / "file").open("rb") as stream, pytest.raises(StorageUnavailable, match="was shortened"):
        digest.catch_up(stream.fileno())

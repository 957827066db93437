"""A store of plain folders: the promises of S3 that the stages rely on, kept by files."""

import errno
import os
import stat
from pathlib import Path
from unittest import mock

import pytest
from prepare_bench import interrupt, make_entry

from finetune_api import run
from finetune_api.artifacts import S3Address, parse_s3_uri
from finetune_api.errors import (
    AccessDenied,
    ConfigError,
    DataError,
    FineTuneError,
    Interrupted,
    ReferenceNotFound,
    StorageUnavailable,
)
from finetune_api.kinds.storage import Storage
from finetune_trainer.storage import RemoteFile, Store, folder, open_store

ADDRESS = S3Address("data", "d/a")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    found = tmp_path / "buckets"
    found.mkdir()
    return found


@pytest.fixture
def store(root: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv(run.STORE_FOLDER_VARIABLE, str(root))
    return open_store(Storage())


def put(root: Path, *keys: str) -> None:
    for key in keys:
        (root / "data" / key).parent.mkdir(parents=True, exist_ok=True)
        (root / "data" / key).write_text(key)


def test_a_folder_that_is_not_there_is_named_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(run.STORE_FOLDER_VARIABLE, str(tmp_path / "none"))
    with pytest.raises(ConfigError, match=r"folder \('.*/none'\) must exist to be a store"):
        open_store(Storage())


LISTINGS = [
    ("d/a.jsonl", ["a.jsonl"]),
    ("d/", ["a.jsonl", "b.jsonl", "sub/c.jsonl", "z.csv"]),
    ("d", ["a.jsonl", "b.jsonl", "sub/c.jsonl", "z.csv"]),
    ("d/*.jsonl", ["a.jsonl", "b.jsonl"]),
    ("d/*/*.jsonl", ["sub/c.jsonl"]),
    ("d?/[xy].jsonl", ["d2/x.jsonl"]),
    ("", ["d/a.jsonl", "d/b.jsonl", "d/sub/c.jsonl", "d/z.csv", "d2/x.jsonl"]),
]


@pytest.mark.parametrize(("key", "want"), LISTINGS)
def test_listing_knows_object_folder_and_glob(root: Path, store: Store, key: str, want: list[str]) -> None:
    put(root, "d/b.jsonl", "d/a.jsonl", "d/sub/c.jsonl", "d/z.csv", "d2/x.jsonl")
    files = store.list_files(S3Address("data", key))
    assert [file.name for file in files] == want
    assert [file.size for file in files] == [len(file.address.key) for file in files]


@pytest.mark.parametrize(
    "uri", ["s3://none/a", "s3://data/none", "s3://data/none/", "s3://data/d/*.csv", "s3://data/d/a/b"]
)
def test_what_is_not_there_is_named_by_its_address(root: Path, store: Store, uri: str) -> None:
    put(root, "d/a")
    with pytest.raises(ReferenceNotFound) as caught:
        store.list_files(parse_s3_uri(uri))
    assert uri in caught.value.message


def test_a_file_that_is_a_link_is_read_as_what_it_leads_to(root: Path, store: Store, tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(b"weights")
    put(root, "m/config.json")
    (root / "data/m/model.safetensors").symlink_to(tmp_path / "blob")
    (root / "data/m/circle").symlink_to(root / "data/m")
    entries = store.fetch_folder(S3Address("data", "m/"), tmp_path / "got")
    assert entries == [make_entry("config.json", b"m/config.json"), make_entry("model.safetensors", b"weights")]


def test_a_folder_comes_back_as_it_was_sent(root: Path, store: Store, tmp_path: Path) -> None:
    contents = {"a/b/small.txt": b"hello", "empty": b"", "large.bin": os.urandom(9 * 2**20 + 7)}
    for name, content in contents.items():
        path = tmp_path / "sent" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    want = [make_entry(name, content) for name, content in sorted(contents.items())]
    moved: list[int] = []
    assert store.upload_folder(tmp_path / "sent", S3Address("runs", "f/"), moved.append) == want
    assert {name: (root / "runs/f" / name).read_bytes() for name in contents} == contents
    assert store.fetch_folder(S3Address("runs", "f/"), tmp_path / "got", moved.append) == want
    assert {name: (tmp_path / "got" / name).read_bytes() for name in contents} == contents
    assert sum(moved) == 2 * sum(map(len, contents.values()))


def test_progress_may_end_an_upload_which_leaves_nothing_half_written(root: Path, store: Store, tmp_path: Path) -> None:
    (tmp_path / "sent").mkdir()
    (tmp_path / "sent" / "a").write_bytes(b"hello")
    with pytest.raises(Interrupted):
        store.upload_folder(tmp_path / "sent", S3Address("runs", "f/"), interrupt)
    assert list((root / "runs/f").iterdir()) == []


def test_what_is_being_written_is_not_listed(root: Path, store: Store) -> None:
    put(root, "d/a", f"d/{folder._UNFINISHED}x")
    assert [file.name for file in store.list_files(S3Address("data", "d/"))] == ["a"]


@pytest.mark.parametrize("content", [b"longer than before", b"new"], ids=["another size", "as long as before"])
def test_an_object_that_changes_after_the_listing_is_not_read(
    root: Path, store: Store, tmp_path: Path, content: bytes
) -> None:
    put(root, "d/a")
    (file,) = store.list_files(ADDRESS)
    store.put_bytes(ADDRESS, content)
    with pytest.raises(DataError, match="must not change while it is read"):
        store.fetch_files([file], tmp_path / "got")
    with pytest.raises(DataError, match="must not change while it is read"):
        store.read_range(file, 0, 1)


@pytest.mark.parametrize("name", ["../outside", "/etc/outside", "a//b"])
def test_a_name_that_would_leave_its_folder_is_refused(root: Path, store: Store, tmp_path: Path, name: str) -> None:
    put(root, "d/a")
    (file,) = store.list_files(ADDRESS)
    with pytest.raises(DataError, match="must stay below its folder"):
        store.fetch_files([RemoteFile(file.address, name, file.size, file.etag)], tmp_path / "got")


@pytest.mark.parametrize("address", [S3Address("..", "a"), S3Address("data", "../../a"), S3Address("data", "")])
def test_no_address_leads_out_of_the_store(store: Store, address: S3Address) -> None:
    with pytest.raises(ReferenceNotFound, match="must name an object"):
        store.put_bytes(address, b"x")


def test_a_conditional_put_writes_once(store: Store) -> None:
    assert store.put_if_absent(ADDRESS, b"first") is True
    assert store.put_if_absent(ADDRESS, b"second") is False
    assert store.read_bytes(ADDRESS, 100) == b"first"
    store.put_bytes(ADDRESS, b"third")
    assert store.read_bytes(ADDRESS, 100) == b"third"
    store.delete(ADDRESS)
    store.delete(ADDRESS)
    assert store.put_if_absent(ADDRESS, b"fourth") is True


def test_parts_and_limits(root: Path, store: Store) -> None:
    put(root, "d/a")
    (file,) = store.list_files(ADDRESS)
    assert (store.read_range(file, 1, 1), store.read_range(file, 1, 100)) == (b"/", b"/a")
    with pytest.raises(DataError, match=r"\(3 bytes\) must have at most 2 bytes"):
        store.read_bytes(ADDRESS, 2)


DISK_ERRORS = [
    pytest.param(OSError(errno.ENOSPC, "full", "a"), ConfigError, "fit on the disk, which is full", id="full"),
    pytest.param(PermissionError(errno.EACCES, "denied", "a"), AccessDenied, "open to this user: 'a'", id="denied"),
    pytest.param(OSError(errno.EIO, "broken", "a"), StorageUnavailable, r"must be served \(broken\)", id="broken"),
]


@pytest.mark.parametrize(("answer", "want", "match"), DISK_ERRORS)
def test_what_a_disk_answers_has_its_class(
    store: Store, monkeypatch: pytest.MonkeyPatch, answer: OSError, want: type[FineTuneError], match: str
) -> None:
    monkeypatch.setattr(os, "replace", mock.Mock(side_effect=answer))
    with pytest.raises(want, match=match):
        store.put_bytes(ADDRESS, b"x")


def test_what_a_run_leaves_is_as_open_as_other_files_of_the_user(root: Path, store: Store) -> None:
    put(root, "d/b")
    store.put_bytes(ADDRESS, b"x")
    assert stat.S_IMODE((root / "data/d/a").stat().st_mode) == stat.S_IMODE((root / "data/d/b").stat().st_mode)

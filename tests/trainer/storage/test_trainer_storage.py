"""The store: what arrives is what was sent, faults are survived or named, nothing leaves its folder."""

import datetime
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path

import prometheus_client
import pytest
from fault_proxy import Fault, FaultProxy
from prepare_bench import PrepareBench, interrupt, make_entry

from finetune_api.artifacts import parse_s3_uri
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
from finetune_trainer.storage import RemoteFile, bucket, fetch, listing, open_store, s3, transfer
from finetune_trainer.storage.connection import MAX_REQUESTS
from finetune_trainer.telemetry import prometheus

MIB = 2**20


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "_LONGEST_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(bucket, "_FIRST_PAUSE", datetime.timedelta(milliseconds=1))
    monkeypatch.setattr(bucket, "_LONGEST_PAUSE", datetime.timedelta(milliseconds=2))


# Errors: class, exit code and address, for everything a store refuses.


def test_a_missing_bucket_ends_with_66_and_its_name(bench: PrepareBench) -> None:
    with pytest.raises(ReferenceNotFound) as caught:
        open_store(bench.storage).list_files(parse_s3_uri("s3://no-such-bucket/train.jsonl"))
    assert caught.value.exit_code == 66
    assert "s3://no-such-bucket/train.jsonl" in caught.value.message
    assert "bucket" in caught.value.remedy


@pytest.mark.parametrize("key", ["missing.jsonl", "missing/", "missing/*.jsonl"], ids=["object", "folder", "glob"])
def test_a_missing_key_ends_with_66_and_its_address(bench: PrepareBench, key: str) -> None:
    with pytest.raises(ReferenceNotFound) as caught:
        open_store(bench.storage).list_files(bench.address(key))
    assert caught.value.exit_code == 66
    assert bench.uri(key) in caught.value.message


@pytest.mark.parametrize("access_key", ["the right one", "AKIAUNKNOWN000000000"])
def test_wrong_credentials_end_with_77_and_stay_secret(bench: PrepareBench, access_key: str) -> None:
    address = parse_s3_uri(bench.put("a", b"x"))
    bench.use_keys(bench.server.access_key if access_key == "the right one" else access_key, "not-the-secret-key")
    with pytest.raises(AccessDenied) as caught:
        open_store(bench.storage).read_bytes(address, 10)
    assert caught.value.exit_code == 77
    assert str(address) in caught.value.message
    assert "not-the-secret-key" not in repr(caught.value) + caught.value.message


def test_no_credentials_at_all_end_with_77(bench: PrepareBench, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        bench.monkeypatch.delenv(name)
    bench.monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(AccessDenied, match="must be reached with credentials"):
        open_store(bench.storage).list_files(bench.address("a"))


def test_a_read_only_user_is_refused_when_writing(bench: PrepareBench) -> None:
    reader = bench.server.add_identity("storage-reader", [f"Read:{bench.bucket}", f"List:{bench.bucket}"])
    address = parse_s3_uri(bench.put("a", b"x"))
    bench.use_keys(reader.access_key, reader.secret_key)
    store = open_store(bench.storage)
    assert store.read_bytes(address, 10) == b"x"
    with pytest.raises(AccessDenied):
        store.put_bytes(address, b"y")
    with pytest.raises(AccessDenied):
        store.put_if_absent(bench.address("b"), b"y")


def test_an_endpoint_that_refuses_connections_ends_with_69(bench: PrepareBench) -> None:
    storage = bench.storage.model_copy(update={"endpoint_url": "http://127.0.0.1:9"})
    with pytest.raises(StorageUnavailable) as caught:
        open_store(storage).list_files(bench.address("a"))
    assert caught.value.exit_code == 69
    assert "http://127.0.0.1:9" in caught.value.message


ANSWERS = [
    pytest.param((403, "ExpiredToken"), AccessDenied, "renew", id="expired credentials"),
    pytest.param((403, "AccessDenied"), AccessDenied, "check the credentials", id="denied"),
    pytest.param((400, "AuthorizationHeaderMalformed"), ConfigError, "region", id="another region"),
    pytest.param((413, "EntityTooLarge"), ConfigError, "limit", id="too large"),
    pytest.param((404, "NoSuchBucket"), ReferenceNotFound, "bucket", id="no bucket"),
    pytest.param((400, "BadDigest"), StorageUnavailable, "between", id="changed on the way"),
    pytest.param((503, "SlowDown"), StorageUnavailable, "health", id="busy"),
    pytest.param((500, "InternalError"), StorageUnavailable, "health", id="broken"),
    pytest.param((418, "Teapot"), FineTuneError, "log", id="never heard of"),
]


@pytest.fixture(params=["boto", "obstore"])
def upload(request: pytest.FixtureRequest, bench: PrepareBench, tmp_path: Path) -> Callable[[], object]:
    """Write the object `a`, through either library."""
    (tmp_path / "a").write_bytes(b"x")
    if request.param == "boto":
        return lambda: open_store(bench.storage).put_bytes(bench.address("a"), b"x")
    return lambda: open_store(bench.storage).upload_folder(tmp_path, bench.address(""))


@pytest.mark.parametrize(("answer", "want", "want_remedy"), ANSWERS)
def test_each_answer_of_a_store_has_its_class(
    fault_proxy: FaultProxy,
    upload: Callable[[], object],
    answer: tuple[int, str],
    want: type[FineTuneError],
    want_remedy: str,
) -> None:
    status, code = answer
    fault_proxy.faults.append(Fault("PUT", times=2, status=status, code=code))
    with pytest.raises(FineTuneError) as caught:
        upload()
    assert type(caught.value) is want
    assert re.match(r"s3://bench/bench-\d+/a ", caught.value.message)
    assert f"{fault_proxy.endpoint_url}/bench answered {status} {code}" in caught.value.message
    assert want_remedy in caught.value.remedy


# Transfers.


def test_a_folder_comes_back_as_it_was_sent(bench: PrepareBench, tmp_path: Path) -> None:
    contents = {"a/b/small.txt": b"hello", "empty": b"", "large.bin": os.urandom(33 * MIB + 7)}
    for name, content in contents.items():
        path = tmp_path / "sent" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    want = [make_entry(name, content) for name, content in sorted(contents.items())]
    store = open_store(bench.storage)
    moved: list[int] = []
    assert store.upload_folder(tmp_path / "sent", bench.address("f"), moved.append) == want
    assert sum(moved) == sum(map(len, contents.values()))
    moved.clear()
    assert store.fetch_folder(bench.address("f/"), tmp_path / "got", moved.append) == want
    assert {name: (tmp_path / "got" / name).read_bytes() for name in contents} == contents
    assert sum(moved) == sum(map(len, contents.values()))


@pytest.mark.parametrize("is_reset", [False, True], ids=["cut short", "reset"])
def test_a_body_that_breaks_off_is_taken_up_from_its_last_byte(
    bench: PrepareBench, fault_proxy: FaultProxy, tmp_path: Path, is_reset: bool
) -> None:
    content = os.urandom(7 * MIB)
    address = parse_s3_uri(bench.put("large", content))
    bench.monkeypatch.setenv("AWS_MAX_ATTEMPTS", "4")
    store = open_store(bench.storage)
    fault_proxy.faults.append(Fault("GET", times=3, body_bytes=MIB + 1, is_reset=is_reset))
    (file,) = store.list_files(address)
    assert store.fetch_files([file], tmp_path)[0] == make_entry("large", content)
    ranges = [headers["range"] for method, _, headers in fault_proxy.requests if method == "GET"]
    assert len(ranges) == 4
    starts = [int(text.removeprefix("bytes=").partition("-")[0]) for text in ranges]
    if not is_reset:  # a reset may throw away bytes that had arrived
        assert starts == [0, MIB + 1, 2 * (MIB + 1), 3 * (MIB + 1)]


def test_a_body_that_never_goes_on_ends_with_69(bench: PrepareBench, fault_proxy: FaultProxy, tmp_path: Path) -> None:
    address = parse_s3_uri(bench.put("a", b"0123456789"))
    store = open_store(bench.storage)
    fault_proxy.faults.append(Fault("GET", times=99, body_bytes=0))
    (file,) = store.list_files(address)
    with pytest.raises(StorageUnavailable, match=r"bench-\d+/a must be served, and no whole answer came"):
        store.fetch_files([file], tmp_path)


def test_an_object_that_changes_after_the_listing_ends_with_65(bench: PrepareBench, tmp_path: Path) -> None:
    address = parse_s3_uri(bench.put("a", b"before"))
    store = open_store(bench.storage)
    (file,) = store.list_files(address)
    bench.put("a", b"after!")
    with pytest.raises(DataError, match="must not change while it is read"):
        store.fetch_files([file], tmp_path)


def test_two_failures_of_the_server_are_survived(bench: PrepareBench, fault_proxy: FaultProxy, tmp_path: Path) -> None:
    address = parse_s3_uri(bench.put("a", b"content"))
    fault_proxy.faults += [Fault("HEAD", status=503), Fault("GET", status=500, code="InternalError")]
    assert open_store(bench.storage).read_bytes(address, 100) == b"content"


@pytest.mark.parametrize("status", [429, 503])
def test_a_store_that_asks_for_patience_gets_it(
    bench: PrepareBench, fault_proxy: FaultProxy, tmp_path: Path, status: int
) -> None:
    (tmp_path / "sent").mkdir()
    (tmp_path / "sent" / "a").write_bytes(b"content")
    patience = {"Retry-After": "1"}
    fault_proxy.faults += [Fault(method, status=status, code="SlowDown", headers=patience) for method in ("GET", "PUT")]
    store = open_store(bench.storage)
    assert store.upload_folder(tmp_path / "sent", bench.address("")) == [make_entry("a", b"content")]
    assert store.fetch_folder(bench.address("a"), tmp_path / "got") == [make_entry("a", b"content")]


def test_a_refusal_without_a_body_is_asked_for_its_reason(bench: PrepareBench, fault_proxy: FaultProxy) -> None:
    address = parse_s3_uri(bench.put("a", b"content"))
    fault_proxy.faults += [Fault("HEAD", status=400), Fault("GET", status=400, code="ExpiredToken")]
    with pytest.raises(AccessDenied, match="must be reached with valid credentials"):
        open_store(bench.storage).list_files(address)


# Downloads that are hashed while they arrive.


@pytest.fixture
def many_small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of 256 KiB, as many at once as there may be."""
    monkeypatch.setattr(fetch, "PART_BYTES", MIB // 4)
    monkeypatch.setattr(transfer, "PART_BYTES", MIB // 4)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "9")


@pytest.mark.usefixtures("many_small_parts")
@pytest.mark.parametrize("body_bytes", [-1, 1000], ids=["whole bodies", "truncated bodies"])
def test_parts_that_arrive_in_any_order_give_the_digest_of_the_file(
    bench: PrepareBench, fault_proxy: FaultProxy, tmp_path: Path, body_bytes: int
) -> None:
    contents = {"a": os.urandom(6 * MIB + 5), "b": os.urandom(3 * MIB), "c": b""}
    for name, content in contents.items():
        bench.put(f"f/{name}", content)
    fault_proxy.faults.append(Fault("GET", times=6, after=3, body_bytes=body_bytes))
    entries = open_store(bench.storage).fetch_folder(bench.address("f/"), tmp_path)
    assert entries == [make_entry(name, content) for name, content in contents.items()]
    assert {name: (tmp_path / name).read_bytes() for name in contents} == contents


@pytest.mark.usefixtures("many_small_parts")
@pytest.mark.parametrize("sizes", [[9 * MIB], [3 * MIB] * 5], ids=["one file", "more files than are hashed at a time"])
def test_parts_in_memory_are_bounded(
    bench: PrepareBench, fault_proxy: FaultProxy, tmp_path: Path, sizes: list[int]
) -> None:
    for number, size in enumerate(sizes):
        bench.put(f"f/{number}", os.urandom(size))
    open_store(bench.storage).fetch_folder(bench.address("f/"), tmp_path)
    assert 4 <= fault_proxy.most_open <= MAX_REQUESTS


def test_a_byte_that_changes_on_the_way_down_shows_in_the_digest(
    bench: PrepareBench, fault_proxy: FaultProxy, tmp_path: Path
) -> None:
    content = os.urandom(MIB)
    address = parse_s3_uri(bench.put("a", content))
    store = open_store(bench.storage)
    (file,) = store.list_files(address)
    fault_proxy.faults.append(Fault("GET", flipped_byte=MIB // 2))
    entry = store.fetch_files([file], tmp_path)[0]
    assert entry != make_entry("a", content)
    assert entry == make_entry("a", (tmp_path / "a").read_bytes())


def test_progress_may_end_a_download(bench: PrepareBench, fault_proxy: FaultProxy, tmp_path: Path) -> None:
    for number in range(60):
        bench.put(f"f/{number}", b"x")
    with pytest.raises(Interrupted):
        open_store(bench.storage).fetch_folder(bench.address("f/"), tmp_path, interrupt)
    assert sum(1 for method, path, _ in fault_proxy.requests if method == "GET" and "list-type" not in path) < 60


# Names.


@pytest.mark.parametrize("name", ["a b", "ü", "+&=", "%41", "#?", "~x", "'\"", "<Code>NoSuchUpload<"])
def test_a_name_of_any_characters_goes_up_and_comes_back(bench: PrepareBench, tmp_path: Path, name: str) -> None:
    (tmp_path / "sent").mkdir()
    (tmp_path / "sent" / name).write_bytes(b"hello")
    store = open_store(bench.storage)
    assert store.upload_folder(tmp_path / "sent", bench.address("odd")) == [make_entry(name, b"hello")]
    assert store.fetch_folder(bench.address("odd/"), tmp_path / "got") == [make_entry(name, b"hello")]
    assert (tmp_path / "got" / name).read_bytes() == b"hello"


@pytest.mark.parametrize("name", ["../outside", "a/../../outside", "/etc/outside", "a//b", "a\\b", "a\nb", "\x1b[2K"])
def test_a_name_that_would_leave_its_folder_is_refused(bench: PrepareBench, tmp_path: Path, name: str) -> None:
    file = RemoteFile(parse_s3_uri(bench.put("x", b"x")), name, 1, "")
    with pytest.raises(DataError, match="must stay below its folder"):
        open_store(bench.storage).fetch_files([file], tmp_path / "root")
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize("name", ["a\nb", "\x1b[2K", "\x7f"])
def test_a_control_character_in_a_name_is_refused_both_ways(bench: PrepareBench, tmp_path: Path, name: str) -> None:
    store = open_store(bench.storage)
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataError, match="must be a regular file with a plain name"):
        store.upload_folder(tmp_path, bench.address("f"))
    bench.put(f"g/{name}", b"x")
    with pytest.raises(DataError, match="must stay below its folder and hold no control characters") as caught:
        store.list_files(bench.address("g/"))
    assert name not in caught.value.message


def test_a_link_below_the_root_is_not_followed(bench: PrepareBench, tmp_path: Path) -> None:
    address = parse_s3_uri(bench.put("link/file", b"x"))
    (tmp_path / "root").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path / "elsewhere")
    file = RemoteFile(address, "link/file", 1, "")
    with pytest.raises(DataError, match="must be usable as a file's name"):
        open_store(bench.storage).fetch_files([file], tmp_path / "root")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_listing_knows_object_folder_and_glob(bench: PrepareBench) -> None:
    for key in ("d/b.jsonl", "d/a.jsonl", "d/sub/c.jsonl", "d/z.csv", "d2/x.jsonl"):
        bench.put(key, b"x")
    bench.put("d/placeholder/", b"")
    store = open_store(bench.storage)

    def names(key: str) -> list[str]:
        return [file.name for file in store.list_files(bench.address(key))]

    assert names("d/a.jsonl") == ["a.jsonl"]
    assert names("d/") == names("d") == ["a.jsonl", "b.jsonl", "sub/c.jsonl", "z.csv"]
    assert names("d/*.jsonl") == ["a.jsonl", "b.jsonl"]
    assert names("d/*/*.jsonl") == ["sub/c.jsonl"]
    assert names("d?/[xy].jsonl") == ["d2/x.jsonl"]


def test_a_listing_is_bounded_and_goes_over_pages(bench: PrepareBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "MAX_FILES", 3)
    for number in range(4):
        bench.put(f"many/{number}", b"x")
    with pytest.raises(DataError, match="must hold at most 3 objects"):
        open_store(bench.storage).list_files(bench.address("many/"))


# Small objects.


def test_a_conditional_put_writes_once(bench: PrepareBench) -> None:
    store = open_store(bench.storage)
    address = bench.address("lock")
    assert store.put_if_absent(address, b"first") is True
    assert store.put_if_absent(address, b"second") is False
    assert store.read_bytes(address, 100) == b"first"
    store.delete(address)
    store.delete(address)
    assert store.put_if_absent(address, b"third") is True


def test_a_conditional_put_that_meets_another_one_is_repeated(bench: PrepareBench, fault_proxy: FaultProxy) -> None:
    fault_proxy.faults.append(Fault("PUT", times=2, status=409, code="ConditionalRequestConflict"))
    assert open_store(bench.storage).put_if_absent(bench.address("lock"), b"x") is True
    fault_proxy.faults.append(Fault("PUT", times=99, status=409, code="ConditionalRequestConflict"))
    with pytest.raises(StorageUnavailable, match="conditional writes in a row"):
        open_store(bench.storage).put_if_absent(bench.address("lock"), b"x")


def test_a_store_without_conditional_writes_is_named(bench: PrepareBench, fault_proxy: FaultProxy) -> None:
    fault_proxy.faults.append(Fault("PUT", times=9, status=501, code="NotImplemented"))
    with pytest.raises(ConfigError, match="If-None-Match"):
        open_store(bench.storage).put_if_absent(bench.address("lock"), b"x")


def test_a_small_object_has_a_limit(bench: PrepareBench) -> None:
    address = parse_s3_uri(bench.put("a", b"12345"))
    assert open_store(bench.storage).read_bytes(address, 5) == b"12345"
    with pytest.raises(DataError, match=r"\(5 bytes\) must have at most 4 bytes"):
        open_store(bench.storage).read_bytes(address, 4)
    assert open_store(bench.storage).read_bytes(parse_s3_uri(bench.put("empty", b"")), 0) == b""


def test_a_part_of_an_object_can_be_read(bench: PrepareBench) -> None:
    store = open_store(bench.storage)
    (file,) = store.list_files(parse_s3_uri(bench.put("a", b"0123456789")))
    assert (store.read_range(file, 2, 3), store.read_range(file, 8, 100)) == (b"234", b"89")


# Settings and figures.


def test_settings_that_boto_refuses_end_with_78(bench: PrepareBench) -> None:
    bench.monkeypatch.setenv("AWS_MAX_ATTEMPTS", "many")
    with pytest.raises(ConfigError, match=r"spec\.storage and the AWS variables must give a client"):
        open_store(bench.storage)


def test_a_custom_endpoint_gets_no_checksum_headers_it_may_not_know(
    bench: PrepareBench, fault_proxy: FaultProxy
) -> None:
    open_store(bench.storage).put_bytes(bench.address("a"), b"x")
    _, _, headers = fault_proxy.requests[-1]
    assert not [name for name in headers if name.lower().startswith("x-amz-checksum")]


def test_the_endpoint_may_come_from_the_environment(bench: PrepareBench) -> None:
    address = parse_s3_uri(bench.put("a", b"x"))
    bench.monkeypatch.setenv("AWS_ENDPOINT_URL_S3", bench.endpoint_url)
    storage = Storage.model_validate({"addressingStyle": "path"})
    assert open_store(storage).read_bytes(address, 10) == b"x"


def test_requests_bytes_and_retries_are_counted(bench: PrepareBench, fault_proxy: FaultProxy) -> None:
    def read(name: str, **labels: str) -> float:
        return prometheus.REGISTRY.get_sample_value(f"finetune_trainer_{name}", labels) or 0.0

    address = parse_s3_uri(bench.put("a", b"12345"))
    before = (
        read("s3_bytes_total", direction="in"),
        read("s3_retries_total"),
        read("s3_requests_total", operation="GetObject", result="success"),
    )
    fault_proxy.faults.append(Fault("HEAD", status=500, code="InternalError"))
    open_store(bench.storage).read_bytes(address, 10)
    after = (
        read("s3_bytes_total", direction="in"),
        read("s3_retries_total"),
        read("s3_requests_total", operation="GetObject", result="success"),
    )
    assert [new - old for new, old in zip(after, before, strict=True)] == [5, 1, 1]
    assert b"finetune_trainer_s3_requests_total" in prometheus_client.generate_latest(prometheus.REGISTRY)


def test_one_store_serves_many_threads(bench: PrepareBench) -> None:
    store = open_store(bench.storage)
    address = parse_s3_uri(bench.put("a", b"x" * 1000))
    results: list[bytes] = []
    threads = [threading.Thread(target=lambda: results.append(store.read_bytes(address, 1000))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [b"x" * 1000] * 8

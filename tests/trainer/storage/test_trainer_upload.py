"""Uploads: one request where one is enough, parts where not, nothing left behind, nothing taken for granted."""

import hashlib
import os
from pathlib import Path
from typing import Any

import obstore
import pytest
from fault_proxy import Fault, FaultProxy
from prepare_bench import PrepareBench, interrupt, make_entry

from finetune_api.errors import AccessDenied, DataError, Interrupted, StorageUnavailable
from finetune_trainer.storage import open_store, transfer, upload
from finetune_trainer.storage.connection import Connection

MIB = 2**20


def test_a_large_file_goes_up_in_parts(bench: PrepareBench, fault_proxy: FaultProxy, tmp_path: Path) -> None:
    content = os.urandom(65 * MIB)
    (tmp_path / "large").write_bytes(content)
    (entry,) = open_store(bench.storage).upload_folder(tmp_path, bench.address(""))
    assert entry == make_entry("large", content)
    assert hashlib.sha256(bench.get("large")).hexdigest() == entry.sha256
    assert sum(1 for method, path, _ in fault_proxy.requests if method == "PUT" and "partNumber" in path) == 9


def test_an_upload_whose_last_answer_is_lost_is_complete(
    bench: PrepareBench, fault_proxy: FaultProxy, large: Path
) -> None:
    lost = Fault("POST", after=1, status=500, is_late=True)
    fault_proxy.faults += [lost, Fault("POST", after=1, status=404, code="NoSuchUpload")]
    (entry,) = open_store(bench.storage).upload_folder(large.parent, bench.address(""))
    assert hashlib.sha256(bench.get("large")).hexdigest() == entry.sha256
    assert sum(1 for method, path, _ in fault_proxy.requests if method == "POST" and "uploadId" in path) == 2


def test_a_link_is_not_uploaded(bench: PrepareBench, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/hostname")
    with pytest.raises(DataError, match="must be a regular file"):
        open_store(bench.storage).upload_folder(tmp_path, bench.address("f"))


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A file of four parts and a bit."""
    # 5 MiB: the least S3 allows.
    monkeypatch.setattr(transfer, "PART_BYTES", 5 * MIB)
    monkeypatch.setattr(upload, "PART_BYTES", 5 * MIB)
    (tmp_path / "large").write_bytes(os.urandom(20 * MIB + 1))
    return tmp_path / "large"


def test_a_small_file_takes_one_request_and_is_proven_by_its_md5(
    bench: PrepareBench, fault_proxy: FaultProxy, tmp_path: Path
) -> None:
    (tmp_path / "a").write_bytes(b"hello")
    assert open_store(bench.storage).upload_folder(tmp_path, bench.address("")) == [make_entry("a", b"hello")]
    assert [method for method, _, _ in fault_proxy.requests] == ["PUT"]


@pytest.mark.parametrize("etag", ['"d41d8cd98f00b204e9800998ecf8427e-1"', "opaque"])
def test_a_file_is_read_back_from_a_store_whose_etag_is_no_md5(
    bench: PrepareBench, fault_proxy: FaultProxy, tmp_path: Path, etag: str
) -> None:
    (tmp_path / "a").write_bytes(b"hello")
    fault_proxy.faults.append(Fault("PUT", headers={"ETag": etag}))
    assert open_store(bench.storage).upload_folder(tmp_path, bench.address("")) == [make_entry("a", b"hello")]
    assert [method for method, _, _ in fault_proxy.requests] == ["PUT", "HEAD", "GET"]


@pytest.mark.parametrize("headers", [{"ETag": '"0123"'}], ids=["another ETag"])
def test_a_store_that_keeps_something_else_ends_with_69(
    bench: PrepareBench, fault_proxy: FaultProxy, tmp_path: Path, headers: dict[str, str]
) -> None:
    (tmp_path / "a").write_bytes(b"hello")
    bench.put("a", b"hell")
    fault_proxy.faults.append(Fault("PUT", status=200, headers=headers))
    with pytest.raises(StorageUnavailable, match=r"\(4 bytes\) must have the 5 bytes that were sent") as caught:
        open_store(bench.storage).upload_folder(tmp_path, bench.address(""))
    assert caught.value.exit_code == 69


def test_a_byte_that_changes_on_the_way_up_is_refused_and_ends_with_69(
    bench: PrepareBench, fault_proxy: FaultProxy, tmp_path: Path
) -> None:
    (tmp_path / "a").write_bytes(b"hello")
    fault_proxy.faults.append(Fault("PUT", flipped_byte=1))
    with pytest.raises(StorageUnavailable, match="must arrive as it was sent") as caught:
        open_store(bench.storage).upload_folder(tmp_path, bench.address(""))
    assert caught.value.exit_code == 69


def test_a_part_that_fails_once_is_sent_again_whole(bench: PrepareBench, fault_proxy: FaultProxy, large: Path) -> None:
    fault_proxy.faults.append(Fault("PUT", after=2, status=500, code="InternalError"))
    moved: list[int] = []
    (entry,) = open_store(bench.storage).upload_folder(large.parent, bench.address(""), moved.append)
    assert entry == make_entry("large", large.read_bytes()) == make_entry("large", bench.get("large"))
    assert sum(moved) == entry.size


def list_multipart_uploads(bench: PrepareBench) -> list[str]:
    found = bench.client.list_multipart_uploads(Bucket=bench.bucket).get("Uploads", [])
    return [item["Key"] for item in found if item["Key"].startswith(bench.folder)]


def test_an_upload_in_parts_that_fails_leaves_none_behind(
    bench: PrepareBench, fault_proxy: FaultProxy, large: Path
) -> None:
    fault_proxy.faults.append(Fault("PUT", after=2, status=403, code="AccessDenied"))
    with pytest.raises(AccessDenied):
        open_store(bench.storage).upload_folder(large.parent, bench.address(""))
    assert [method for method, _, _ in fault_proxy.requests if method in ("POST", "DELETE")] == ["POST", "DELETE"]
    assert list_multipart_uploads(bench) == bench.list_keys() == []


def test_parts_that_can_not_be_removed_do_not_hide_the_failure(
    bench: PrepareBench, fault_proxy: FaultProxy, large: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fault_proxy.faults += [Fault(method, times=9, status=403, code="AccessDenied") for method in ("PUT", "DELETE")]
    with pytest.raises(AccessDenied):
        open_store(bench.storage).upload_folder(large.parent, bench.address(""))
    assert "may be left in the store" in caplog.text


def test_progress_may_end_an_upload_which_leaves_no_parts_behind(bench: PrepareBench, large: Path) -> None:
    with pytest.raises(Interrupted):
        open_store(bench.storage).upload_folder(large.parent, bench.address(""), interrupt)
    assert list_multipart_uploads(bench) == []
    # Whole, where it was complete before the signal was looked for.
    assert bench.list_keys() in ([], ["large"])


def test_parts_for_aws_carry_checksums(bench: PrepareBench, fault_proxy: FaultProxy, large: Path) -> None:
    connection = Connection(bench.storage)
    # What a client of AWS itself does; one with an endpoint of its own sends no checksums.
    connection.client.meta.config.request_checksum_calculation = "when_supported"
    (entry,) = upload.upload_folder(connection, large.parent, bench.address(""), None)
    assert entry == make_entry("large", bench.get("large"))
    sent = [headers for method, path, headers in fault_proxy.requests if method == "PUT" and "partNumber" in path]
    assert ["x-amz-checksum-sha256" in headers for headers in sent] == [True] * 5


@pytest.mark.parametrize("name", ["small", "large"])
@pytest.mark.parametrize("size", [3, 21 * MIB], ids=["shortened", "grown"])
def test_a_file_that_changes_during_its_upload_ends_with_65(
    bench: PrepareBench, large: Path, name: str, size: int
) -> None:
    path = large.rename(large.with_name(name))
    if name == "small":
        os.truncate(path, 10)
    put = obstore.put_async

    async def change_then_put(*arguments: Any, **options: Any) -> Any:
        os.truncate(path, size)
        return await put(*arguments, **options)

    bench.monkeypatch.setattr(obstore, "put_async", change_then_put)
    with pytest.raises(DataError, match="must not change while it is uploaded") as caught:
        open_store(bench.storage).upload_folder(large.parent, bench.address(""))
    assert caught.value.exit_code == 65

"""When checkpoints are saved, and that one that can't be costs a warning and never the run."""

import errno
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from finetune_api.artifacts import build_run_layout
from finetune_api.errors import AccessDenied, StorageUnavailable
from finetune_trainer.checkpoints import snapshot
from finetune_trainer.checkpoints.archive import Archive, Identity
from finetune_trainer.checkpoints.saver import SavePolicy, Saver
from finetune_trainer.checkpoints.snapshot import Snapshot
from finetune_trainer.checkpoints.state import Position, TrainingState
from finetune_trainer.storage.folder import FolderStore
from finetune_trainer.telemetry import live, progress

LAYOUT = build_run_layout("s3://runs/movies", "a-uid")


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Desk:
    """A saver over a store that is a folder."""

    def __init__(self, root: Path, every_seconds: float | None = 60.0, keep: int = 2) -> None:
        (root / "store" / "runs").mkdir(parents=True)
        self.root, self.clock, self.store = root, Clock(), FolderStore(root / "store")
        self.archive = Archive(self.store, LAYOUT, Identity("a-uid", f"sha256:{'1' * 64}", "2" * 64))
        self.saver = Saver(self.archive, SavePolicy(1, "pod-a", 100, "loss", every_seconds, keep), self.clock)
        self.saver.choose_interval(1_000, "cpu")

    def save(self, step: int) -> bool:
        return self.saver.save_now(self.take(step), self.fill(step))

    def fill(self, step: int) -> Path:
        folder = self.root / "scratch" / f"step-{step:06d}"
        snapshot.write_random_state({"torch": torch.get_rng_state()}, folder, 0)
        return folder

    def take(self, step: int) -> Snapshot:
        found = TrainingState(position=Position(step=step), latest={"accuracy": 0.5, "loss": 1.25})
        return Snapshot(found, {"weight": torch.ones(4)}, {}, lambda path: progress.write_table([], path))

    def list_steps(self) -> list[int]:
        return [item.step for item in self.archive.list_kept()]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    live.STATE.begin("train")
    return Desk(tmp_path)


def test_a_checkpoint_is_due_by_the_clock(desk: Desk) -> None:
    desk.clock.now = 59.9
    assert not desk.saver.is_due
    desk.clock.now = 60.0
    assert desk.saver.is_due

    desk.save(5)

    assert not desk.saver.is_due
    desk.clock.now = 120.0
    assert desk.saver.is_due


def test_a_checkpoint_is_due_by_wish_once(desk: Desk) -> None:
    live.STATE.request_checkpoint()
    assert desk.saver.is_due

    desk.save(5)

    assert not desk.saver.is_due


def test_without_a_choice_the_interval_is_that_of_the_state(tmp_path: Path) -> None:
    desk = Desk(tmp_path, every_seconds=None)

    desk.saver.choose_interval(62_500_000, "cpu")

    assert desk.saver.every_seconds == 250.0


def test_none_is_due_while_one_is_under_way(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    may_go_on, upload = threading.Event(), desk.store.upload_folder

    def wait(*arguments: Any) -> Any:
        may_go_on.wait(30)
        return upload(*arguments)

    monkeypatch.setattr(desk.store, "upload_folder", wait)
    desk.saver.save(desk.take(5), desk.fill(5))
    desk.clock.now = 1000.0
    live.STATE.request_checkpoint()

    assert not desk.saver.is_due
    may_go_on.set()
    desk.saver.wait()
    # The wish is not lost.
    assert desk.saver.is_due
    assert desk.list_steps() == [5]


def test_what_stands_is_told(desk: Desk) -> None:
    for step in (5, 6, 7):
        assert desk.save(step)

    told = live.STATE.read()
    assert told.checkpoints == desk.archive.list_kept()
    assert [(item.step, item.attempt, item.size) for item in told.checkpoints or []] == [
        (item.step, 1, item.size) for item in desk.archive.list_kept()
    ]
    assert desk.list_steps() == [7, 6]
    newest = (told.checkpoints or [])[0]
    assert newest.uri == "s3://runs/movies/runs/a-uid/attempts/1/pod-a/checkpoints/step-000007/"
    assert [(item.name, item.value) for item in newest.metrics] == [("loss", "1.25"), ("accuracy", "0.5")]
    assert list((desk.root / "scratch").iterdir()) == []


REFUSALS: dict[str, tuple[Callable[[], Exception], str]] = {
    "the store is away": (
        lambda: StorageUnavailable("s3://runs must be served", "look at it"),
        "the checkpoint of step 6 could not be saved: s3://runs must be served",
    ),
    "the store refuses": (
        lambda: AccessDenied("s3://runs must be open to these keys", "grant PutObject"),
        "the checkpoint of step 6 could not be saved: s3://runs must be open to these keys",
    ),
    "the disk is full": (
        lambda: OSError(errno.ENOSPC, "No space left on device"),
        "the checkpoint of step 6 could not be saved: OSError: [Errno 28] No space left on device",
    ),
}


@pytest.mark.parametrize(("build", "want"), REFUSALS.values(), ids=REFUSALS.keys())
def test_one_that_cannot_be_saved_is_told_and_leaves_the_older_ones(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, build: Callable[[], Exception], want: str
) -> None:
    desk.save(5)

    def refuse(*_: object, **__: object) -> None:
        raise build()

    with monkeypatch.context() as patch:
        patch.setattr(desk.store, "upload_folder", refuse)
        assert not desk.save(6)

    assert (desk.saver.has_failed, desk.saver.saved_step) == (True, 5)
    assert (live.STATE.read().checkpoint_failure, desk.list_steps()) == (want, [5])
    assert list((desk.root / "scratch").iterdir()) == []
    assert desk.save(7)
    assert (live.STATE.read().checkpoint_failure, desk.saver.has_failed) == (None, False)


def test_a_disk_that_is_full_is_told(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(snapshot, "save_file", refuse)
    desk.saver.save(desk.take(6), desk.root / "scratch" / "step-000006")
    desk.saver.wait()

    assert desk.saver.has_failed
    assert live.STATE.read().checkpoint_failure == (
        "the checkpoint of step 6 could not be saved: SafetensorError: "
        "Error while serializing: I/O error: No space left on device (os error 28)"
    )


def test_one_that_is_given_up_for_a_newer_one_is_no_failure(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    upload, is_begun = desk.store.upload_folder, threading.Event()

    def upload_slowly(root: Path, address: Any, progress: Callable[[int], None]) -> Any:
        is_begun.set()
        while True:
            progress(0)

    monkeypatch.setattr(desk.store, "upload_folder", upload_slowly)
    desk.saver.save(desk.take(5), desk.fill(5))
    assert is_begun.wait(30)

    desk.saver.give_up()

    monkeypatch.setattr(desk.store, "upload_folder", upload)
    assert (desk.saver.has_failed, live.STATE.read().checkpoint_failure) == (True, None)
    assert desk.save(6)
    assert desk.list_steps() == [6]


def test_old_ones_that_cannot_be_removed_do_no_harm(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (5, 6):
        desk.save(step)

    def refuse(*_: object) -> None:
        raise AccessDenied("s3://runs must be open to these keys", "grant DeleteObject")

    monkeypatch.setattr(desk.store, "delete", refuse)

    assert desk.save(7)
    assert desk.list_steps() == [7, 6, 5]

"""Checkpoints in a store: the newest that is whole is taken, what is wrong with others is said, old ones go."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetune_api.artifacts import CheckpointManifest, CheckpointPlace, S3Address, build_run_layout
from finetune_api.errors import DataError
from finetune_trainer.checkpoints.archive import Archive, Identity
from finetune_trainer.checkpoints.state import Position, TrainingState
from finetune_trainer.storage.folder import FolderStore

UID = "5b1f8a52-2d0e-4c55-9c7f-0d6f3a0b7f11"
IDENTITY = Identity(UID, f"sha256:{'1' * 64}", "2" * 64)
LAYOUT = build_run_layout("s3://runs/movies", UID)
FILES = ("metrics.csv", "optimizer.safetensors", "random-000.safetensors", "state.json", "weights.safetensors")


class Shelf:
    """An archive in a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "store").mkdir()
        self.store = FolderStore(root / "store")
        (root / "store" / "runs").mkdir()
        self.archive = Archive(self.store, LAYOUT, IDENTITY)

    def save(self, step: int, attempt: int = 1, writer: str = "pod-a", identity: Identity = IDENTITY) -> None:
        """Commit a checkpoint whose files name their step."""
        folder = self.root / f"local-{attempt}-{writer}-{step}"
        folder.mkdir()
        for name in FILES:
            (folder / name).write_bytes(f"{name} of step {step}".encode() * 20)
        state = TrainingState(position=Position(step=step))
        (folder / "state.json").write_text(state.model_dump_json(by_alias=True))
        place = CheckpointPlace(attempt, writer, step)
        Archive(self.store, LAYOUT, identity).commit(place, folder, lambda found: build_manifest(found, place))

    def get_path(self, step: int, name: str = "", attempt: int = 1, writer: str = "pod-a") -> Path:
        address = LAYOUT.checkpoint(CheckpointPlace(attempt, writer, step))
        return self.root / "store" / address.bucket / address.key / name

    def fetch(self) -> tuple[int | None, list[str]]:
        """Return the step that is gone on from, and what is said of others."""
        restored, damages = self.archive.fetch_newest(self.root / "restored")
        return (restored.state.position.step if restored else None), damages

    def list_steps(self) -> list[int]:
        return [item.step for item in self.archive.list_kept()]


def build_manifest(identity: Identity, place: CheckpointPlace) -> CheckpointManifest:
    return CheckpointManifest(
        uid=identity.uid,
        attempt=place.attempt,
        writer=place.writer,
        step=place.step,
        total_steps=100,
        time="2026-11-30T12:00:00Z",
        run_digest=identity.run_digest,
        prepared_sha256=identity.prepared_sha256,
        files=[],
    )


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    found = Shelf(tmp_path)
    found.save(10)
    found.save(20)
    return found


def say(step: int, what: str) -> str:
    address = LAYOUT.checkpoint(CheckpointPlace(1, "pod-a", step))
    return f"checkpoint {address} is damaged and was passed over: {what}"


def test_where_nothing_was_saved_nothing_is_gone_on_from(tmp_path: Path) -> None:
    assert Shelf(tmp_path).fetch() == (None, [])


def test_the_newest_is_gone_on_from(shelf: Shelf) -> None:
    assert shelf.fetch() == (20, [])
    assert {path.name for path in (shelf.root / "restored").iterdir()} == set(FILES)


def flip(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


CHANGES: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda content: content[: len(content) // 2],
    "with a flipped bit": flip,
    "empty": lambda _: b"",
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_a_damaged_one_is_named_and_the_one_before_is_taken(
    shelf: Shelf, name: str, change: Callable[[bytes], bytes]
) -> None:
    path = shelf.get_path(20, name)
    path.write_bytes(change(path.read_bytes()))

    step, damages = shelf.fetch()

    assert step == 10
    wants = [f"{name} has other content than its manifest says", f"{name} was changed", f"{name} can't be read"]
    assert len(damages) == 1
    assert damages[0] in [say(20, want) for want in wants]


def test_every_bit_of_a_manifest_that_means_something_is_proven(shelf: Shelf) -> None:
    path = shelf.get_path(20, "manifest.json")
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        shelf.archive = Archive(shelf.store, LAYOUT, IDENTITY)
        step, damages = shelf.fetch()
        assert (step == 10 and len(damages) == 1) or (step, damages) == (20, []), (place, content[place])
        # What is read all the same is what was written: blanks between the fields.
        assert step == 10 or content[place : place + 1].isspace()


@pytest.mark.parametrize("name", FILES)
def test_one_that_lacks_a_file_is_named_and_the_one_before_is_taken(shelf: Shelf, name: str) -> None:
    shelf.get_path(20, name).unlink()

    assert shelf.fetch() == (10, [say(20, f"{name} is missing")])


@pytest.mark.parametrize("name", FILES)
def test_one_with_a_file_of_another_step_is_named_and_the_one_before_is_taken(shelf: Shelf, name: str) -> None:
    shelf.get_path(20, name).write_bytes(shelf.get_path(10, name).read_bytes())

    assert shelf.fetch() == (10, [say(20, f"{name} has other content than its manifest says")])


def test_one_with_the_manifest_of_another_step_is_named_and_the_one_before_is_taken(shelf: Shelf) -> None:
    shelf.get_path(20, "manifest.json").write_bytes(shelf.get_path(10, "manifest.json").read_bytes())

    assert shelf.fetch() == (10, [say(20, "manifest.json is that of another checkpoint")])


def test_without_a_manifest_there_is_none(shelf: Shelf) -> None:
    shelf.get_path(20, "manifest.json").unlink()

    assert shelf.fetch() == (10, [])


OTHERS = {
    "another run": Identity("another", IDENTITY.run_digest, IDENTITY.prepared_sha256),
    "other inputs": Identity(UID, f"sha256:{'3' * 64}", IDENTITY.prepared_sha256),
    "other prepared rows": Identity(UID, IDENTITY.run_digest, "4" * 64),
}


@pytest.mark.parametrize("identity", OTHERS.values(), ids=OTHERS.keys())
def test_one_of_another_run_is_named_and_the_one_before_is_taken(shelf: Shelf, identity: Identity) -> None:
    shelf.save(30, identity=identity)

    assert shelf.fetch() == (20, [say(30, "it was saved by a run of other inputs")])


def test_of_the_same_step_the_later_attempts_is_taken(shelf: Shelf) -> None:
    shelf.save(20, attempt=2, writer="pod-b")

    _, damages = shelf.fetch()

    assert damages == []
    assert [(item.attempt, item.step) for item in shelf.archive.list_kept()] == [(2, 20), (1, 20), (1, 10)]


def test_older_ones_go_when_a_newer_one_stands(shelf: Shelf) -> None:
    shelf.save(30, attempt=2, writer="pod-b")

    shelf.archive.prune(CheckpointPlace(2, "pod-b", 30), keep=2)

    assert shelf.list_steps() == [30, 20]
    assert not shelf.get_path(10).exists() or list(shelf.get_path(10).iterdir()) == []


def test_a_pod_that_wakes_up_removes_nothing_of_its_successor(shelf: Shelf) -> None:
    shelf.save(40, attempt=2, writer="pod-b")
    shelf.save(50, attempt=2, writer="pod-b")
    shelf.save(30)

    shelf.save(25, attempt=2, writer="pod-b")

    shelf.archive.prune(CheckpointPlace(1, "pod-a", 30), keep=1)

    assert shelf.list_steps() == [50, 40, 30, 25]


def test_one_that_is_saved_again_takes_the_place_of_the_first(shelf: Shelf) -> None:
    # Its manifest was written, and could not be read back.
    shelf.get_path(30).mkdir()
    shelf.get_path(30, "manifest.json").write_text("{}")

    shelf.save(30)

    assert shelf.fetch() == (30, [])


def test_of_a_run_that_is_published_nothing_is_saved_any_more(shelf: Shelf) -> None:
    shelf.store.put_bytes(LAYOUT.manifest, b"{}")

    with pytest.raises(DataError, match=r"manifest.json is there: another pod has published this run"):
        shelf.save(30)

    assert shelf.list_steps() == [20, 10]


def test_one_that_goes_while_it_is_fetched_is_no_damage(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch = shelf.store.fetch_files

    def remove_first(files: Any, *arguments: Any) -> Any:
        monkeypatch.undo()
        shelf.save(30)
        for path in shelf.get_path(20).iterdir():
            path.unlink()
        return fetch(files, *arguments)

    monkeypatch.setattr(shelf.store, "fetch_files", remove_first)

    step, damages = shelf.fetch()

    # The one before was whole, and would do; nothing is called damaged.
    assert (step in (10, 30), damages) == (True, [])


def test_a_damaged_one_is_not_shown_and_goes_with_the_next(shelf: Shelf) -> None:
    shelf.get_path(20, "weights.safetensors").write_bytes(b"")
    shelf.fetch()
    assert shelf.list_steps() == [10]

    shelf.save(15, attempt=2, writer="pod-b")
    shelf.archive.prune(CheckpointPlace(2, "pod-b", 15), keep=2)

    assert shelf.list_steps() == [15, 10]
    assert not list(shelf.get_path(20).glob("*"))


def test_what_an_earlier_attempt_has_begun_goes_too(shelf: Shelf) -> None:
    shelf.get_path(20, "manifest.json").unlink()
    shelf.save(30, attempt=2, writer="pod-b")

    shelf.archive.prune(CheckpointPlace(2, "pod-b", 30), keep=2)

    assert shelf.list_steps() == [30, 10]
    assert not list(shelf.get_path(20).glob("*"))


def test_after_success_all_go_whole_or_not(shelf: Shelf) -> None:
    shelf.get_path(20, "manifest.json").unlink()
    published = LAYOUT.model(1, "pod-a").join("config.json")
    shelf.store.put_bytes(published, b"{}")

    shelf.archive.remove_all()

    kept = [item.key for item in shelf.store.iterate_items(S3Address("runs", "movies/"))]
    assert kept == [published.key]

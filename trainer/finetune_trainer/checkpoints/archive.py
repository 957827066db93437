"""Checkpoints in the store: committed whole, found and proven again, removed when newer ones stand.

A checkpoint is there exactly when its manifest is and every file is what the manifest says. That a file is missing, cut
or another's is found when it is fetched; the next older checkpoint is taken then, and the damage is told.
"""

import contextlib
import logging
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from finetune_api import artifacts, quantities
from finetune_api.artifacts import CheckpointManifest, CheckpointPlace, RunLayout, S3Address
from finetune_api.errors import DataError, ReferenceNotFound
from finetune_api.kinds.finetunejob.status import MAX_CHECKPOINT_METRICS, MAX_CHECKPOINTS, CheckpointStatus
from finetune_trainer.checkpoints import state
from finetune_trainer.checkpoints.state import TrainingState
from finetune_trainer.storage import Store
from finetune_trainer.storage.listing import RemoteFile

logger = logging.getLogger(__name__)

_MAX_MANIFEST_BYTES = 2**20
"""A few dozen files of a rank each; more is not ours (a choice)."""
_LISTINGS = 3
"""How often it is looked for checkpoints that are not gone while they are fetched (a choice)."""


_Found = dict[CheckpointPlace, dict[str, RemoteFile]]
"""Files by name, of each checkpoint."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What a checkpoint must have been saved from, so that a training may go on from it."""

    uid: str
    run_digest: str
    prepared_sha256: str


@dataclass(frozen=True, slots=True)
class Restored:
    """A checkpoint on this machine's disk, fetched and proven."""

    state: TrainingState
    folder: Path


def load_restored(folder: Path) -> Restored | None:
    """Find the checkpoint that the first rank has fetched; None where there was none."""
    return Restored(state.load_state(folder), folder) if (folder / state.STATE).exists() else None


class Archive:
    """The checkpoints of one run.

    Args:
        store: of the run.
        layout: of the run.
        identity: of the run.
    """

    def __init__(self, store: Store, layout: RunLayout, identity: Identity) -> None:
        self._store, self._layout, self._identity = store, layout, identity
        self._damaged: set[CheckpointPlace] = set()

    def fetch_newest(
        self, folder: Path, progress: Callable[[int], None] | None = None
    ) -> tuple[Restored | None, list[str]]:
        """Fetch the newest checkpoint that verifies.

        Args:
            folder: for its files; emptied first.
            progress: as for `Store.fetch_files`.

        Returns:
            The checkpoint, None where there is none; and what is wrong with those that are newer, a sentence each.
        """
        damages: list[str] = []
        for _ in range(_LISTINGS):
            is_any_gone = False
            found = self._find()
            for place in self._select_whole(found):
                shutil.rmtree(folder, ignore_errors=True)
                try:
                    return self._fetch(place, found[place], folder, progress), damages
                except ReferenceNotFound:
                    # Its writer, which is not dead after all, has a newer one by now.
                    logger.info("checkpoint %s is gone", self._layout.checkpoint(place))
                    is_any_gone = True
                except (_DamagedError, DataError) as error:
                    self._damaged.add(place)
                    address = self._layout.checkpoint(place)
                    damages.append(f"checkpoint {address} is damaged and was passed over: {error}")
                    logger.warning(damages[-1])
            if not is_any_gone:
                break
        shutil.rmtree(folder, ignore_errors=True)
        return None, damages

    def _select_whole(self, found: _Found) -> list[CheckpointPlace]:
        """Return the checkpoints that have a manifest and no known damage, the newest first."""
        whole = [place for place, files in found.items() if artifacts.MANIFEST in files and place not in self._damaged]
        return sorted(whole, key=lambda place: (place.step, place.attempt, place.writer), reverse=True)

    def _find(self) -> _Found:
        """Find the files of every checkpoint, whole or not."""
        found: _Found = {}
        for place, name, file in self._iterate_files():
            found.setdefault(place, {})[name] = file
        return found

    def _iterate_files(self) -> Iterable[tuple[CheckpointPlace, str, RemoteFile]]:
        try:
            listed = self._store.list_files(self._layout.run.join("attempts/"))
        except ReferenceNotFound:
            return
        for file in listed:
            if parsed := artifacts.parse_checkpoint_file(file.name):
                yield *parsed, file

    def _fetch(
        self,
        place: CheckpointPlace,
        files: dict[str, RemoteFile],
        folder: Path,
        progress: Callable[[int], None] | None,
    ) -> Restored:
        manifest = self._read_manifest(place)
        wanted = {entry.path: entry for entry in manifest.files}
        missing = sorted(set(wanted) - set(files))
        if missing:
            raise _DamagedError(f"{missing[0]} is missing")
        # Listed below `attempts`, they are to lie beside each other.
        local = [RemoteFile(files[name].address, name, files[name].size, files[name].etag) for name in wanted]
        for entry in self._store.fetch_files(local, folder, progress):
            if entry != wanted[entry.path]:
                raise _DamagedError(f"{entry.path} has other content than its manifest says")
        try:
            return Restored(state.load_state(folder), folder)
        except (OSError, ValidationError) as error:
            raise _DamagedError(f"{state.STATE} can't be read") from error

    def _read_manifest(self, place: CheckpointPlace) -> CheckpointManifest:
        address = self._layout.checkpoint(place).join(artifacts.MANIFEST)
        try:
            manifest = CheckpointManifest.model_validate_json(self._store.read_bytes(address, _MAX_MANIFEST_BYTES))
        except ValidationError as error:
            raise _DamagedError(f"{artifacts.MANIFEST} can't be read") from error
        if manifest.digest != manifest.compute_digest():
            raise _DamagedError(f"{artifacts.MANIFEST} was changed")
        if CheckpointPlace(manifest.attempt, manifest.writer, manifest.step) != place:
            raise _DamagedError(f"{artifacts.MANIFEST} is that of another checkpoint")
        if Identity(manifest.uid, manifest.run_digest, manifest.prepared_sha256) != self._identity:
            raise _DamagedError("it was saved by a run of other inputs")
        return manifest

    def commit(
        self,
        place: CheckpointPlace,
        folder: Path,
        build_manifest: Callable[[Identity], CheckpointManifest],
        progress: Callable[[int], None] | None = None,
    ) -> CheckpointManifest:
        """Upload a checkpoint's files, then its manifest, and read that back.

        Raises:
            FineTuneError: as the store answers; DataError when something else is read back, or when the run has been
                published: nobody would remove what a pod thought dead leaves then.
        """
        if self._is_there(self._layout.manifest):
            raise DataError(f"{self._layout.manifest} is there: another pod has published this run", "nothing")
        address = self._layout.checkpoint(place)
        target = address.join(artifacts.MANIFEST)
        if self._is_there(target):
            # Saved again after its manifest was written and not read back, it is none until it is whole again.
            self._store.delete(target)
        entries = self._store.upload_folder(folder, address, progress)
        manifest = build_manifest(self._identity).model_copy(update={"files": entries})
        manifest = manifest.model_copy(update={"digest": manifest.compute_digest()})
        content = manifest.model_dump_json(indent=1).encode() + b"\n"
        self._store.put_if_absent(target, content)
        if self._store.read_bytes(target, _MAX_MANIFEST_BYTES) != content:
            raise DataError(f"{target} must be what this pod has written", "look at who else writes there")
        return manifest

    def _is_there(self, address: S3Address) -> bool:
        try:
            self._store.find_file(address)
        except ReferenceNotFound:
            return False
        return True

    def list_kept(self) -> list[CheckpointStatus]:
        """Return the checkpoints in the store as the status shows them, the newest first, unreadable ones left out."""
        kept = []
        for place in self._select_whole(self._find()):
            with contextlib.suppress(_DamagedError, DataError, ReferenceNotFound):
                kept.append(self.describe(self._read_manifest(place)))
        return kept[:MAX_CHECKPOINTS]

    def describe(self, manifest: CheckpointManifest) -> CheckpointStatus:
        """Return a checkpoint as the status shows it."""
        place = CheckpointPlace(manifest.attempt, manifest.writer, manifest.step)
        return CheckpointStatus(
            step=manifest.step,
            attempt=manifest.attempt,
            uri=f"{self._layout.checkpoint(place)}/",
            size=quantities.build_quantity(sum(entry.size for entry in manifest.files)),
            time=manifest.time,
            metrics=manifest.metrics[:MAX_CHECKPOINT_METRICS],
        )

    def prune(self, newest: CheckpointPlace, keep: int) -> None:
        """Remove the checkpoints before `newest`, but for the last `keep` of them with it, and what is none.

        A later attempt's, and what is newer than `newest`, is another pod's, of which this one does not know: it is
        left alone.
        """
        found = {place: files for place, files in self._find().items() if place.attempt <= newest.attempt}
        whole = [place for place in self._select_whole(found) if place.step <= newest.step and place != newest]
        begun = [
            place
            for place, files in found.items()
            if place.attempt < newest.attempt and artifacts.MANIFEST not in files
        ]
        for place in (*whole[max(0, keep - 1) :], *begun, *(self._damaged & found.keys())):
            self._remove(place, found[place])

    def remove_all(self) -> None:
        """Remove every checkpoint of the run, whole or begun."""
        for place, files in self._find().items():
            self._remove(place, files)

    def _remove(self, place: CheckpointPlace, files: dict[str, RemoteFile]) -> None:
        """Remove the manifest first: what is half removed is no checkpoint."""
        address = self._layout.checkpoint(place)
        for name in sorted(files, key=lambda name: name != artifacts.MANIFEST):
            with contextlib.suppress(ReferenceNotFound):
                self._store.delete(address.join(name))
        logger.info("checkpoint %s removed", address)


class _DamagedError(Exception):
    """A checkpoint isn't what its manifest says; the message says where."""

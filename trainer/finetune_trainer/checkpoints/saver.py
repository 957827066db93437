"""When a checkpoint is saved, and the work beside the training: written to the scratch disk, uploaded, committed.

One at a time. A checkpoint that can't be saved costs a warning, never the run; the older ones stay.
"""

import logging
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from finetune_api.artifacts import CheckpointManifest, CheckpointPlace
from finetune_api.errors import FineTuneError, Interrupted
from finetune_api.kinds.finetunejob.status import CheckpointStatus
from finetune_api.kinds.status_fields import build_time
from finetune_trainer.checkpoints import schedule, state
from finetune_trainer.checkpoints import snapshot as snapshots
from finetune_trainer.checkpoints.archive import Archive, Identity
from finetune_trainer.checkpoints.snapshot import Snapshot
from finetune_trainer.telemetry import live, prometheus

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.05
_RANK_SECONDS = 30.0
"""How long the other ranks' generators are waited for (a choice): they write them at the same step."""


@dataclass(frozen=True, slots=True)
class SavePolicy:
    """Who saves, how often, and how many checkpoints are kept."""

    attempt: int
    writer: str
    total_steps: int
    best_metric: str
    every_seconds: float | None
    """Least seconds between two checkpoints; None: by the size of the state."""
    keep: int
    num_ranks: int = 1


class Saver:
    """Saves checkpoints of one attempt.

    Args:
        archive: of the run.
        policy: of the attempt.
        clock: monotonic seconds.
    """

    def __init__(self, archive: Archive, policy: SavePolicy, clock: Callable[[], float] = time.monotonic) -> None:
        self._archive, self._policy, self._clock = archive, policy, clock
        self._last_at = clock()
        self.every_seconds = policy.every_seconds or schedule.SHORTEST_SECONDS
        self._thread: threading.Thread | None = None
        self._wished = False
        self._is_given_up = threading.Event()
        self.saved_step: int | None = None
        """Step of the newest checkpoint that this attempt has saved."""
        self.has_failed = False
        """Whether the latest one could not be saved."""

    def choose_interval(self, num_trained: int, device: str) -> None:
        """Choose how often to save, where the run's owner has not; the first interval begins now.

        Args:
            num_trained: parameters that are trained.
            device: `cpu` or `cuda`.
        """
        if self._policy.every_seconds is None:
            self.every_seconds = schedule.choose_seconds(schedule.predict_bytes(num_trained), device)
        prometheus.record_checkpoint_interval(self.every_seconds)
        self._last_at = self._clock()

    @property
    def is_due(self) -> bool:
        """Whether a checkpoint should be saved now, by the clock or by wish; never while another one is under way."""
        self._wished |= live.take_checkpoint_request()
        return self.is_free and (self._wished or self._clock() - self._last_at >= self.every_seconds)

    @property
    def is_free(self) -> bool:
        """Whether nothing is under way."""
        return self._thread is None or not self._thread.is_alive()

    def save(self, snapshot: Snapshot, folder: Path) -> None:
        """Save a snapshot in the background; call it only when `is_due`.

        Args:
            snapshot: left alone by others until `is_due` is true again.
            folder: on the scratch disk, for its files; what is there already belongs to it. Removed at the end.
        """
        self._begin()
        # A daemon: an upload that hangs must not keep the process.
        self._thread = threading.Thread(target=self._save, args=(snapshot, folder), name="checkpoint", daemon=True)
        self._thread.start()

    def save_now(self, snapshot: Snapshot, folder: Path) -> bool:
        """Save a snapshot as `save` does and wait for it; tell whether it stands. Nothing else may be under way."""
        self._begin()
        return self._save(snapshot, folder)

    def wait(self) -> None:
        """Wait until nothing is under way."""
        if self._thread is not None:
            self._thread.join()

    def _begin(self) -> None:
        self._last_at, self._wished = self._clock(), False

    def _save(self, snapshot: Snapshot, folder: Path) -> bool:
        began, cpu_began = self._clock(), time.thread_time()
        step = snapshot.state.position.step
        try:
            kept = self._commit(snapshot, folder)
        except Exception as error:
            # Whatever it is, safetensors' own errors of a full disk among them: the run must not end for it.
            self.record_failure(step, error)
            return False
        else:
            seconds, cpu_seconds = self._clock() - began, time.thread_time() - cpu_began
            logger.info("checkpoint of step %d saved in %.1f s (%.1f s of processor time)", step, seconds, cpu_seconds)
            prometheus.record_checkpoint(kept[0], seconds)
            prometheus.record_checkpoints(kept)
            self.saved_step, self.has_failed = step, False
            return True
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def record_failure(self, step: int, error: Exception) -> None:
        """Tell that a checkpoint could not be saved; one that was given up for a newer one is no failure."""
        self.has_failed = True
        if self._is_given_up.is_set():
            logger.info("the checkpoint of step %d was given up", step)
            return
        words = error.message if isinstance(error, FineTuneError) else f"{type(error).__name__}: {error}"
        text = f"the checkpoint of step {step} could not be saved: {words}"
        logger.warning("%s; the older ones stay", text)
        prometheus.record_checkpoint_failure(text)

    def give_up(self) -> None:
        """End what is under way, if there is anything, and wait for its end."""
        self._is_given_up.set()
        self.wait()
        self._is_given_up.clear()

    def _check_given_up(self, _num_bytes: int) -> None:
        if self._is_given_up.is_set():
            raise Interrupted("a newer one takes its place", "nothing")

    def _commit(self, snapshot: Snapshot, folder: Path) -> list[CheckpointStatus]:
        """Write, upload and commit a snapshot, and remove what it replaces; return what is kept, the newest first."""
        place = CheckpointPlace(self._policy.attempt, self._policy.writer, snapshot.state.position.step)
        snapshots.write(snapshot, folder)
        if not snapshot.state.position.is_finished:
            # Nothing is drawn any more once a training is done.
            self._wait_for_ranks(folder)
        manifest = self._archive.commit(
            place, folder, lambda identity: self._describe(identity, snapshot), self._check_given_up
        )
        saved = self._archive.describe(manifest)
        try:
            self._archive.prune(place, self._policy.keep)
            others = [item for item in self._archive.list_kept() if item.uri != saved.uri]
        except FineTuneError as error:
            logger.warning("checkpoints that are of no use any more could not be removed: %s", error.message)
            others = []
        return [saved, *others]

    def _wait_for_ranks(self, folder: Path) -> None:
        """Wait until each rank's generators are there; one that is missing costs only that rank's exactness."""
        wanted = [folder / state.name_random_file(rank) for rank in range(self._policy.num_ranks)]
        end = self._clock() + _RANK_SECONDS
        while not all(path.exists() for path in wanted):
            if self._clock() > end:
                text = (
                    "a rank has not told the state of its random numbers: whoever goes on from here draws others for it"
                )
                logger.warning(text)
                prometheus.record_warning(text)
                return
            time.sleep(_POLL_SECONDS)

    def _describe(self, identity: Identity, snapshot: Snapshot) -> CheckpointManifest:
        found = snapshot.state
        return CheckpointManifest(
            uid=identity.uid,
            attempt=self._policy.attempt,
            writer=self._policy.writer,
            step=found.position.step,
            total_steps=self._policy.total_steps,
            is_finished=found.position.is_finished,
            time=build_time(datetime.now(UTC)),
            run_digest=identity.run_digest,
            prepared_sha256=identity.prepared_sha256,
            metrics=live.build_metrics(found.latest, self._policy.best_metric),
            files=[],
        )

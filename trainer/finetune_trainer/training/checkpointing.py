"""A training that runs, as the checkpoints see it: where it stands, what belongs to its state, how it goes on.

A position is marked where a training can be taken up again: before each optimizer step, before each evaluation, and
when no step is left. What is saved later is the state at the last mark, since weights and moments stay as they are
until the step is made; only the random numbers go on, so theirs are kept with the mark.
"""

import contextlib
import functools
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import torch

from finetune_trainer.checkpoints import random_states, snapshot, state
from finetune_trainer.checkpoints.archive import Restored
from finetune_trainer.checkpoints.best import BestWeights
from finetune_trainer.checkpoints.random_states import RandomState
from finetune_trainer.checkpoints.saver import Saver
from finetune_trainer.checkpoints.snapshot import Buffers, Snapshot
from finetune_trainer.checkpoints.state import Figures, Position, TrainingState
from finetune_trainer.telemetry import progress
from finetune_trainer.telemetry.progress import ProgressLog

logger = logging.getLogger(__name__)


class Source(Protocol):
    """The loop, as far as its state is saved."""

    model: Any

    def describe_state(self) -> TrainingState:
        """Return what is no tensor, but for what `Checkpointing` knows itself."""

    def get_optimizer(self) -> Any:
        """Return torch's optimizer."""


class Checkpointing:
    """Saves one training's state, and knows the one it goes on from.

    Args:
        saver: of the attempt, on the first rank; the others save their random numbers and nothing else.
        restored: the checkpoint to go on from.
        folder: on the scratch disk that all ranks share, for the files of checkpoints under way.
        rank: this one.
        num_ranks: of the pod.
        device: this rank's.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        saver: Saver | None,
        restored: Restored | None,
        folder: Path,
        *,
        rank: int,
        num_ranks: int,
        device: torch.device,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.restored = restored
        self.base: Figures | None = restored.state.base if restored else None
        self.latest: dict[str, float] = dict(restored.state.latest) if restored else {}
        self._saver, self._folder = saver, folder
        self._rank, self._num_ranks, self._device = rank, num_ranks, device
        self._clock, self._began = clock, clock()
        self._buffers = Buffers()
        self._source: Source | None = None
        self._position: Position | None = None
        self._saved = restored.state.position if restored else None
        self._random: RandomState = {}
        self._seconds = 0.0

    def attach(self, source: Source, best: BestWeights, log: ProgressLog) -> None:
        """Begin to follow a training; before this there is nothing to save."""
        self._source, self._best, self._progress = source, best, log
        if self._saver is not None:
            weights = snapshot.find_weights(source.model)
            self._saver.choose_interval(sum(tensor.numel() for tensor in weights.values()), self._device.type)

    def mark(self, position: Position) -> None:
        """Remember that the training can be taken up again here."""
        self._position, self._random = position, random_states.capture(self._device)
        self._seconds = self.measure_seconds()

    def leave(self) -> None:
        """Go on from the last mark: from here on the state is another, and nothing is saved until the next one."""
        self._position = None

    @property
    def is_finished(self) -> bool:
        """Whether the checkpoint is that of a training that was done: its weights are those to publish."""
        return self.restored is not None and self.restored.state.position.is_finished

    def stop_saving(self) -> None:
        """End what is under way: the run needs no checkpoint any more."""
        if self._saver is not None:
            self._saver.give_up()

    @property
    def is_due(self) -> bool:
        """Whether this rank wants a checkpoint at the next mark; the first rank speaks for all."""
        return self._saver is not None and self._saver.is_due

    def save(self) -> None:
        """Save the state at the last mark in the background; every rank calls it at the same one."""
        began = self._clock()
        with self._surviving():
            self._write_random_state()
            if self._saver is not None:
                self._saver.save(self._take(), self._get_folder())
                logger.info("training paused for %.3f s to copy its state", self._clock() - began)

    @contextlib.contextmanager
    def _surviving(self) -> Iterator[None]:
        """Let no checkpoint end the run, whatever the disk or the memory says."""
        try:
            yield
        except Exception as error:
            if self._saver is None:
                logger.warning("the random numbers of this rank could not be saved", exc_info=error)
            else:
                self._saver.record_failure(self._position.step if self._position else 0, error)

    def save_last(self) -> int | None:
        """Save the state at the last mark, now that this attempt ends, after what is under way.

        Returns:
            The step after which the next attempt goes on; None where none was made.
        """
        if self._saver is not None:
            if self._is_news():
                # A pod's grace is the time of one upload.
                self._saver.give_up()
            self._saver.wait()
            if self._saver.has_failed:
                self._saved = None
        if self._is_news():
            with self._surviving():
                self._write_random_state()
                if self._saver is not None:
                    self._saver.save_now(self._take(is_copied=False), self._get_folder())
        saved = self._saver.saved_step if self._saver is not None else None
        return self.restored.state.position.step if saved is None and self.restored else saved

    def _is_news(self) -> bool:
        """Tell whether the last mark is another than those that are saved."""
        if self._source is None or self._position is None or self._position.step == 0:
            return False
        # Only the first rank knows whether its last one stands; the others give what it may need.
        return self._saver is None or self._position != self._saved

    def _get_folder(self) -> Path:
        if self._position is None:
            raise AssertionError("a position is marked before anything is saved")
        return self._folder / state.name_folder(self._position.step)

    def _write_random_state(self) -> None:
        snapshot.write_random_state(self._random, self._get_folder(), self._rank)
        self._saved = self._position

    def _take(self, *, is_copied: bool = True) -> Snapshot:
        """Take the state at the last mark; nothing changes it any more where it isn't copied, which needs no memory."""
        source, position = self._source, self._position
        if source is None or position is None:
            raise AssertionError("a position is marked before anything is saved")
        found = source.describe_state().model_copy(
            update={
                "position": position,
                "num_ranks": self._num_ranks,
                "best": self._best.state,
                "base": self.base,
                "latest": self.latest,
                "seconds": self._seconds,
            }
        )
        if not position.is_finished and self._best.step is not None and self._best.step != position.step:
            snapshot.keep_best(self._best.path, self._get_folder())
        moments = {} if position.is_finished else snapshot.find_moments(source.model, source.get_optimizer())
        weights = snapshot.find_weights(source.model)
        return Snapshot(
            state=found,
            weights=self._buffers.copy("weights", weights) if is_copied else weights,
            optimizer=self._buffers.copy("optimizer", moments) if is_copied else moments,
            save_table=functools.partial(progress.write_table, self._progress.copy_table()),
        )

    def describe_interval(self) -> str:
        """Say how many seconds lie between two checkpoints; empty on ranks that save none."""
        return "" if self._saver is None else f"{self._saver.every_seconds:.0f}"

    def measure_seconds(self) -> float:
        """Measure how long this run has been trained, the attempts before this one included."""
        before = self.restored.state.seconds if self.restored else 0.0
        return before + self._clock() - self._began

    @property
    def has_same_ranks(self) -> bool:
        """Whether as many ranks train as did when the checkpoint was saved."""
        return self.restored is None or self.restored.state.num_ranks == self._num_ranks

    def restore_weights(self, model: Any) -> None:
        """Put the checkpoint's weights and random numbers back, and the best weights where they belong."""
        restored = self._get_restored()
        snapshot.restore_weights(model, restored.folder / state.WEIGHTS, is_strict=self.has_same_ranks)
        self._best.state = restored.state.best
        if self._rank == 0:
            self._progress.resume(progress.load_table(restored.folder / state.TABLE))
            self._restore_best(model, restored.folder / state.BEST)
        self.restore_random_state()

    def _restore_best(self, model: Any, saved: Path) -> None:
        if saved.exists():
            saved.replace(self._best.path)
        elif self._best.step is not None:
            self._best.write(model)

    def restore_random_state(self) -> None:
        """Put this rank's random numbers back; a rank that was not there before draws its own."""
        restored = self._get_restored()
        found = snapshot.load_random_state(restored.folder, self._rank)
        if found is None:
            logger.warning("rank %d was not there when the checkpoint was saved: it draws its own numbers", self._rank)
            torch.manual_seed(hash((restored.state.position.step, self._rank)))
            return
        random_states.restore(found, self._device)

    def restore_optimizer(self, model: Any, optimizer: Any, scheduler: Any) -> None:
        """Put moments, learning rates and schedule back."""
        restored = self._get_restored()
        snapshot.restore_moments(model, optimizer, restored.folder)
        scheduler.load_state_dict(restored.state.scheduler)
        for group, rate in zip(optimizer.param_groups, restored.state.learning_rates, strict=True):
            group["lr"] = rate
        if self._num_ranks == 1:
            # The next checkpoint wants this room on the scratch disk.
            for name in (state.WEIGHTS, state.OPTIMIZER):
                (restored.folder / name).unlink(missing_ok=True)

    def _get_restored(self) -> Restored:
        if self.restored is None:
            raise AssertionError("there is a checkpoint to go on from")
        return self.restored

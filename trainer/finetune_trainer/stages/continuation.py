"""What a train stage goes on from, and what it leaves to the next attempt.

Rank 0 fetches the newest checkpoint beside the other inputs; the other ranks of the pod find it on their disk. When a
signal ends the stage, the state at the last mark is saved before the process ends.
"""

import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from finetune_api.artifacts import PreparedManifest, RunLayout
from finetune_api.errors import FineTuneError, Interrupted
from finetune_api.run import RunConfig
from finetune_trainer import rank_environment, signals
from finetune_trainer.planning import plan
from finetune_trainer.publishing import commit
from finetune_trainer.storage import Store
from finetune_trainer.telemetry import prometheus

if TYPE_CHECKING:
    import torch

    from finetune_trainer.checkpoints.archive import Archive
    from finetune_trainer.training.checkpointing import Checkpointing

logger = logging.getLogger(__name__)

_RESTORED, _UNDER_WAY = "restored", "checkpoints"


def open_archive(store: Store, layout: RunLayout, config: RunConfig, prepared: PreparedManifest) -> "Archive":
    """Open the run's checkpoints."""
    from finetune_trainer.checkpoints.archive import Archive, Identity

    if config.prepared is None:
        raise AssertionError("the launcher lets no train stage without prepared output pass")
    return Archive(store, layout, Identity(config.job.uid, prepared.run_digest, config.prepared.sha256))


class Continuation:
    """The way of a training from one attempt to the next, as one rank goes it.

    Args:
        config: of the run.
        scratch: local disk, shared by the ranks of this pod.
        prepared: what is trained on.
        archive: of the run, on the first rank.
    """

    def __init__(
        self, config: RunConfig, scratch: Path, prepared: PreparedManifest, archive: "Archive | None" = None
    ) -> None:
        self._config, self._scratch, self._prepared, self._archive = config, scratch, prepared, archive
        self._checkpointing: Checkpointing | None = None

    def fetch(self) -> None:
        """Fetch the newest checkpoint that verifies, if there is one, to where every rank finds it.

        Raises:
            FineTuneError: the store can't be read, or a signal came.
        """
        if self._archive is None:
            raise AssertionError("the first rank fetches")
        shutil.rmtree(self._scratch / _UNDER_WAY, ignore_errors=True)
        progress = signals.build_progress("the fetching of a checkpoint")
        restored, damages = self._archive.fetch_newest(self._scratch / _RESTORED, progress)
        for text in damages:
            prometheus.record_warning(text)
        step = restored.state.position.step if restored is not None else 0
        logger.info("the training begins after step %d", step)
        # Together, so that nobody is told of a step and no share of the whole.
        prometheus.record_plan(plan.parse_plan(self._prepared.resolved).total_steps)
        prometheus.record_resumed(step)
        prometheus.record_checkpoints(self._archive.list_kept())

    def open(self, device: "torch.device") -> "Checkpointing":
        """Open what saves this attempt's state; told of the rank's device once that is known."""
        from finetune_trainer.checkpoints.archive import load_restored
        from finetune_trainer.checkpoints.saver import SavePolicy, Saver
        from finetune_trainer.training.checkpointing import Checkpointing

        rank, num_ranks = rank_environment.get_rank(), rank_environment.count_ranks()
        checkpoint, saver = self._config.spec.run_policy.checkpoint, None
        if self._archive is not None:
            chosen = plan.parse_plan(self._prepared.resolved)
            policy = SavePolicy(
                attempt=self._config.job.attempt,
                writer=commit.find_writer(),
                total_steps=chosen.total_steps,
                best_metric=chosen.best_metric,
                every_seconds=checkpoint.every_seconds,
                keep=checkpoint.keep,
                num_ranks=num_ranks,
            )
            saver = Saver(self._archive, policy)
        self._checkpointing = Checkpointing(
            saver,
            load_restored(self._scratch / _RESTORED),
            self._scratch / _UNDER_WAY,
            rank=rank,
            num_ranks=num_ranks,
            device=device,
        )
        return self._checkpointing

    def end(self, interrupted: Interrupted) -> Interrupted:
        """Save what can be taken up again.

        Returns:
            What to raise: the interruption, with what the next attempt goes on from.
        """
        step = self._checkpointing.save_last() if self._checkpointing is not None else None
        if step is None:
            return Interrupted(f"{interrupted.message}; no checkpoint stands", "nothing: the training begins again")
        return Interrupted(
            f"{interrupted.message}; the checkpoint of step {step} stands", f"nothing: it goes on after step {step}"
        )

    def clean_up(self) -> None:
        """Remove the checkpoints of a run that has published, unless its owner wants to keep them."""
        if self._checkpointing is not None:
            self._checkpointing.stop_saving()
        if self._archive is not None:
            _remove_all(self._archive, self._config)


def remove_checkpoints(store: Store, layout: RunLayout, config: RunConfig) -> None:
    """Remove the checkpoints of a run that an attempt before this one has published."""
    from finetune_trainer.checkpoints.archive import Archive, Identity

    _remove_all(Archive(store, layout, Identity(config.job.uid, "", "")), config)


def _remove_all(archive: "Archive", config: RunConfig) -> None:
    if config.spec.run_policy.checkpoint.keep_after_success:
        return
    try:
        archive.remove_all()
        prometheus.record_checkpoints([])
    except FineTuneError as error:
        logger.warning("checkpoints that are of no use any more could not be removed: %s", error.message)

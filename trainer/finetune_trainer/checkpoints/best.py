"""The best weights so far, by the metric that decides; the rule that stops a training early."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from finetune_trainer import whole_files
from finetune_trainer.checkpoints import snapshot
from finetune_trainer.checkpoints.state import BestState


class BestWeights:
    """Keeps the trained weights of the best evaluation on disk, and tells when it stops getting better.

    Args:
        path: file for the weights.
        is_greater_better: direction of the metric.
        patience: evaluations without improvement after which training ends; None: never.
        min_delta: least change that counts.
    """

    def __init__(self, path: Path, is_greater_better: bool, patience: int | None, min_delta: float) -> None:
        self.path, self._sign = path, 1.0 if is_greater_better else -1.0
        self._patience, self._min_delta = patience, min_delta
        self.state = BestState()

    @property
    def step(self) -> int | None:
        """The step the best weights are of; None before the first evaluation."""
        return self.state.step

    def record(self, model: Any, value: float, step: int, is_writer: bool) -> None:
        """Take in an evaluation; save the weights if they are the best so far.

        Args:
            model: the trained model.
            value: of the metric that decides.
            step: of the optimizer.
            is_writer: whether this rank writes the file.
        """
        found = self.state
        if found.value is None or self._sign * (value - found.value) > 0:
            found = found.model_copy(update={"value": value, "step": step})
            if is_writer:
                self.write(model)
        # A crawl of tiny gains is not progress: staleness is measured from the last gain that counted.
        if found.reference is None or self._sign * (value - found.reference) > self._min_delta:
            self.state = found.model_copy(update={"reference": value, "num_stale": 0})
        else:
            self.state = found.model_copy(update={"num_stale": found.num_stale + 1})

    def write(self, model: Any) -> None:
        """Take a model's weights for the best ones; the file is replaced whole."""
        weights = snapshot.find_weights(model)
        with whole_files.replacing(self.path) as partial:
            save_file({name: tensor.cpu().contiguous() for name, tensor in weights.items()}, partial)

    @property
    def is_exhausted(self) -> bool:
        """Whether patience has run out."""
        return self._patience is not None and self.state.num_stale >= self._patience

    def restore(self, model: Any, *, is_strict: bool = True) -> None:
        """Put the best weights back into the model of every rank; without an evaluation the last ones stay.

        Args:
            model: of this rank.
            is_strict: as for `snapshot.restore_weights`.
        """
        if self.step is None:
            return
        if torch.distributed.is_initialized():
            # Rank 0 may still be writing.
            torch.distributed.barrier()
        snapshot.restore_weights(model, self.path, is_strict=is_strict)

"""The best weights so far, by the metric that decides; the rule that stops a training early."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file


class BestWeights:
    """Keeps the trained weights of the best evaluation on disk, and tells when it stops getting better.

    Args:
        path: file for the weights.
        is_greater_better: direction of the metric.
        patience: evaluations without improvement after which training ends; None: never.
        min_delta: least change that counts.
    """

    def __init__(self, path: Path, is_greater_better: bool, patience: int | None, min_delta: float) -> None:
        self._path, self._sign = path, 1.0 if is_greater_better else -1.0
        self._patience, self._min_delta = patience, min_delta
        self._reference: float | None = None
        self._num_stale = 0
        self.value: float | None = None
        self.step: int | None = None

    def record(self, model: Any, value: float, step: int, is_writer: bool) -> None:
        """Take in an evaluation; save the weights if they are the best so far.

        Args:
            model: the trained model.
            value: of the metric that decides.
            step: of the optimizer.
            is_writer: whether this rank writes the file.
        """
        if self.value is None or self._sign * (value - self.value) > 0:
            self.value, self.step = value, step
            if is_writer:
                partial = self._path.with_suffix(".partial")
                save_file(_get_trained(model), partial)
                partial.replace(self._path)
        # A crawl of tiny gains is not progress: staleness is measured from the last gain that counted.
        if self._reference is None or self._sign * (value - self._reference) > self._min_delta:
            self._reference, self._num_stale = value, 0
        else:
            self._num_stale += 1

    @property
    def is_exhausted(self) -> bool:
        """Whether patience has run out."""
        return self._patience is not None and self._num_stale >= self._patience

    def restore(self, model: Any) -> None:
        """Put the best weights back into the model of every rank; without an evaluation the last ones stay."""
        if self.step is None:
            return
        if torch.distributed.is_initialized():
            # Rank 0 may still be writing.
            torch.distributed.barrier()
        saved = load_file(self._path)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.requires_grad:
                    parameter.copy_(saved[name])


def _get_trained(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach().cpu().contiguous() for name, p in model.named_parameters() if p.requires_grad}

"""The automatic choices of a run: decided once in the prepare stage, as the strings of `resolved`, and read back.

Pure. The train stage carries them out and decides none anew.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from finetune_api.errors import DataError
from finetune_api.kinds.finetunejob.spec import FineTuneJobSpec, Precision
from finetune_api.kinds.finetunejob.status import ResolvedKey
from finetune_api.tasks import TASKS


@dataclass(frozen=True, slots=True)
class Plan:
    """What `resolved` of prepared.json says about the training."""

    micro_batch_tokens: int
    is_packed: bool
    learning_rate: float
    total_steps: int
    precision: Precision
    best_metric: str
    num_embeddings: int | None = None
    """Tokens the model is given embeddings for; None: as many as it has."""


def parse_plan(resolved: Mapping[str, str]) -> Plan:
    """Read the choices.

    Raises:
        DataError: one is missing or no number, as in files of another version of the trainer.
    """
    try:
        return Plan(
            micro_batch_tokens=int(resolved[ResolvedKey.MICRO_BATCH_TOKENS]),
            is_packed=_parse_flag(resolved[ResolvedKey.PACKING]),
            learning_rate=float(resolved[ResolvedKey.LEARNING_RATE]),
            total_steps=int(resolved[ResolvedKey.TOTAL_STEPS]),
            precision=Precision(resolved[ResolvedKey.PRECISION]),
            best_metric=resolved[ResolvedKey.BEST_METRIC],
            num_embeddings=int(resolved[ResolvedKey.EMBEDDINGS]) if ResolvedKey.EMBEDDINGS in resolved else None,
        )
    except (KeyError, ValueError) as error:
        raise DataError(
            f"prepared.json must hold every choice of the prepare stage: {error}",
            "use the same trainer image for both stages",
        ) from error


def _parse_flag(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(f"{text} is neither true nor false")
    return text == "true"


# The rule of a hosted service that many users know, in its numbers.
_USUAL_EPOCHS = 3


_MOST_AUTO_EPOCHS = 25


_FEWEST_SAMPLES = 100


_MOST_SAMPLES = 25_000


def choose_epochs(num_rows: int) -> int:
    """Choose how often to go through the rows: 3 times, more for few rows, fewer for many."""
    if _USUAL_EPOCHS * num_rows < _FEWEST_SAMPLES:
        return min(_MOST_AUTO_EPOCHS, math.ceil(_FEWEST_SAMPLES / num_rows))
    if _USUAL_EPOCHS * num_rows > _MOST_SAMPLES:
        return max(1, _MOST_SAMPLES // num_rows)
    return _USUAL_EPOCHS


def build_choices(spec: FineTuneJobSpec, num_rows: int, micro_batch_tokens: int, *, is_packed: bool) -> dict[str, str]:
    """Decide everything the spec left open.

    Args:
        spec: of the run.
        num_rows: to train on.
        micro_batch_tokens: that fit into the memory.
        is_packed: whether samples share a row.
    """
    training = spec.training
    steps_per_epoch = math.ceil(num_rows / training.batch_size)
    if training.max_steps is not None:
        total_steps, epochs = training.max_steps, f"{training.max_steps / steps_per_epoch:.4g}"
    else:
        epochs = training.epochs or str(choose_epochs(num_rows))
        total_steps = max(1, math.ceil(float(epochs) * steps_per_epoch))
    precision = training.precision
    if precision == Precision.AUTO and spec.resources.gpus == 0:
        precision = Precision.FLOAT32
    return {
        ResolvedKey.PACKING: "true" if is_packed else "false",
        ResolvedKey.MICRO_BATCH_TOKENS: str(micro_batch_tokens),
        ResolvedKey.LEARNING_RATE: training.learning_rate or TASKS[spec.task].learning_rates[spec.method.kind],
        ResolvedKey.EPOCHS: epochs,
        ResolvedKey.TOTAL_STEPS: str(total_steps),
        ResolvedKey.PRECISION: str(precision),
        ResolvedKey.BEST_METRIC: spec.evaluation.best_metric or TASKS[spec.task].default_metric,
        ResolvedKey.SEED: str(training.seed),
    }

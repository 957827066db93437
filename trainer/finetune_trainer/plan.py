"""The automatic choices of the prepare stage, read back as numbers. The train stage carries them out, none anew."""

from collections.abc import Mapping
from dataclasses import dataclass

from finetune_api.errors import DataError
from finetune_api.spec import Precision
from finetune_api.status import ResolvedKey


@dataclass(frozen=True, slots=True)
class Plan:
    """What `resolved` of prepared.json says about the training."""

    micro_batch_size: int
    gradient_accumulation: int
    learning_rate: float
    total_steps: int
    precision: Precision
    best_metric: str


def parse_plan(resolved: Mapping[str, str]) -> Plan:
    """Read the choices.

    Raises:
        DataError: one is missing or no number, as in files of another version of the trainer.
    """
    try:
        return Plan(
            micro_batch_size=int(resolved[ResolvedKey.MICRO_BATCH_SIZE]),
            gradient_accumulation=int(resolved[ResolvedKey.GRADIENT_ACCUMULATION]),
            learning_rate=float(resolved[ResolvedKey.LEARNING_RATE]),
            total_steps=int(resolved[ResolvedKey.TOTAL_STEPS]),
            precision=Precision(resolved[ResolvedKey.PRECISION]),
            best_metric=resolved[ResolvedKey.BEST_METRIC],
        )
    except (KeyError, ValueError) as error:
        raise DataError(
            f"prepared.json must hold every choice of the prepare stage: {error}",
            "use the same trainer image for both stages",
        ) from error

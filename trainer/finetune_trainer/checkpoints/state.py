"""What a checkpoint holds beside tensors: one JSON document, and the names of the files next to it."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from finetune_api.kinds.object_model import Model

STATE = "state.json"
WEIGHTS = "weights.safetensors"
OPTIMIZER = "optimizer.safetensors"
BEST = "best.safetensors"
TABLE = "metrics.csv"


def name_folder(step: int) -> str:
    """Name the folder of a checkpoint on the scratch disk."""
    return f"step-{step:06d}"


def name_random_file(rank: int) -> str:
    """Name the file of a rank's generators."""
    return f"random-{rank:03d}.safetensors"


class Position(Model):
    """Where a training stands: between two optimizer steps."""

    step: Annotated[int, Field(ge=0)]
    """step: optimizer steps made."""
    is_evaluation_pending: bool = False
    """isEvaluationPending: the evaluation that is due after this step has not been made."""
    is_finished: bool = False
    """isFinished: no step is left; the weights are those to publish."""


class BestState(Model):
    """Which weights are the best so far, and how long nothing got better."""

    value: float | None = None
    """value of the metric that decides."""
    step: int | None = None
    """step the best weights are of."""
    reference: float | None = None
    """reference: the last value that was better by minDelta."""
    num_stale: int = 0
    """numStale: evaluations since then."""


class Figures(Model):
    """An evaluation's results."""

    metrics: dict[str, float]
    """metrics by name."""
    confusion: list[list[int]] | None = None
    """confusion: rows by true label (outer) and predicted label (inner)."""


class TrainingState(Model):
    """state.json: all that is no tensor. Numbers come back bit for bit: JSON holds a double's shortest form."""

    version: Literal[1] = 1
    """version of this format."""
    position: Position
    """position in the training."""
    is_early_stopped: bool = False
    """isEarlyStopped: patience ran out."""
    num_ranks: Annotated[int, Field(ge=1)] = 1
    """numRanks that trained."""
    scheduler: Annotated[dict[str, Any], Field(default_factory=dict)]
    """scheduler: the state of the learning rate's schedule."""
    learning_rates: Annotated[list[float], Field(default_factory=list)]
    """learningRates of the optimizer's groups."""
    best: Annotated[BestState, Field(default_factory=BestState)]
    """best weights so far."""
    base: Figures | None = None
    """base model's evaluation, so that it is made once."""
    latest: Annotated[dict[str, float], Field(default_factory=dict)]
    """latest evaluation's metrics."""
    first_loss: float | None = None
    """firstLoss of the training."""
    recent_losses: Annotated[list[float], Field(default_factory=list)]
    """recentLosses, by which an explosion is known."""
    num_tokens: int = 0
    """numTokens trained on, padding excluded."""
    seconds: float = 0.0
    """seconds of training, evaluation included."""


def load_state(folder: Path) -> TrainingState:
    """Read state.json.

    Raises:
        OSError, pydantic.ValidationError: it is missing or not of this version.
    """
    return TrainingState.model_validate_json((folder / STATE).read_bytes())

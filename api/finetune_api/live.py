"""What a running trainer tells of itself: the small JSON that it serves beside its metrics, for whoever watches a run.

The operator asks each running pod of a run (`GET PROGRESS_PATH` on `run.METRICS_PORT`) and copies what changed into the
status; it believes nothing beyond the bounds of this model. `POST CHECKPOINT_PATH` asks the pod to save its state. Best
effort: no answer, or a bad one, changes nothing; how a stage ended is told by `run.TerminationMessage` alone.
"""

from typing import Annotated

from pydantic import Field

from finetune_api.kinds.finetunejob.status import MAX_CHECKPOINTS, MAX_COUNT, CheckpointStatus, EvaluationStatus
from finetune_api.kinds.object_model import Model
from finetune_api.kinds.status_fields import Message
from finetune_api.quantities import FigureString

PROGRESS_PATH = "/progress"
CHECKPOINT_PATH = "/checkpoint"
POD_HEADER = "Finetune-Pod-UID"
"""Of a request: uid of the pod that is meant. Another one, which has got its address since, answers 421. A request for
a checkpoint must carry it: it is known to whoever may read pods, not to whoever reaches the port."""
MAX_PROGRESS_BYTES = 16_384
"""Longest answer that is read (a choice); the bounds of the model leave it at some 10 KiB."""

Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]
Word = Annotated[str, Field(pattern=r"^[a-z]{1,16}$", max_length=16)]


class LiveProgress(Model):
    """Where a running stage stands. A field is absent where nothing is known yet."""

    stage: Word | None = None
    """stage: prepare or train."""
    phase: Word | None = None
    """phase: one of metrics.TrainerPhase; a newer trainer may have others."""
    step: Count | None = None
    """step of the optimizer reached, of the whole run."""
    total_steps: Count | None = None
    """totalSteps planned, of the whole run."""
    percent: Annotated[int, Field(ge=0, le=100)] | None = None
    """percent of the stage's work: of the steps in stage train."""
    estimated_remaining_seconds: Count | None = None
    """estimatedRemainingSeconds of the stage, evaluations included."""
    tokens_per_second: Count | None = None
    """tokensPerSecond of the latest steps, padding excluded."""
    train_loss: FigureString | None = None
    """trainLoss of the latest step."""
    last_evaluation: EvaluationStatus | None = None
    """lastEvaluation on the validation rows."""
    resumed_from_step: Count | None = None
    """resumedFromStep is the step that this pod went on from; 0: it began anew; absent: not decided yet."""
    lost_steps: Count | None = None
    """lostSteps of earlier pods that this one makes again, where it knows of them."""
    checkpoints: Annotated[list[CheckpointStatus], Field(max_length=MAX_CHECKPOINTS)] | None = None
    """checkpoints of all attempts in the store, the newest first; absent: not known yet."""
    checkpoint_failure: Message | None = None
    """checkpointFailure: why the latest checkpoint could not be saved; absent once a later one is."""

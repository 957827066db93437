"""What the operator reports: FineTuneJobStatus, condition types, reasons and the pure update of conditions.

Types and reasons are API: renaming one breaks users' alerts and `kubectl wait`. Nothing here reads a clock.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from finetune_api import wording
from finetune_api.kinds.object_model import Model
from finetune_api.quantities import BytesQuantity, Quantity

MAX_MESSAGE_LENGTH = 1024
"""Longest message kept in a condition, a failure or an Event; Events allow 1,024 characters."""
MAX_ATTEMPT_MESSAGE_LENGTH = 256
"""Of each attempt in the list: ten of them must leave the status small."""
MAX_ATTEMPTS = 10
MAX_METRICS = 32
MAX_WARNINGS = 16
MAX_CHECKPOINTS = 10
MAX_COUNT = 10**15
"""Greatest number of steps, seconds or tokens taken from a pod: what is beyond is no measurement (a choice)."""
MAX_CHECKPOINT_METRICS = 4
"""Of one checkpoint, and of one evaluation of a run in progress: the one that chooses, and what is read beside it."""

_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})")


def _check_time(text: str) -> str:
    """Refuse what the API server would: a pod may have written it."""
    if not _TIME.fullmatch(text):
        raise PydanticCustomError("time", "must be a time such as 2026-01-31T12:00:00Z")
    # Of the right form, and yet there may be no such day.
    datetime.fromisoformat(text)
    return text


Message = Annotated[str, Field(max_length=MAX_MESSAGE_LENGTH)]
ReasonText = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z]([A-Za-z0-9_]*[A-Za-z0-9])?$")]
Time = Annotated[str, Field(max_length=40, json_schema_extra={"format": "date-time"}), AfterValidator(_check_time)]
Uri = Annotated[str, Field(max_length=1280)]
Digest = Annotated[str, Field(max_length=80, pattern=r"^(sha256:)?[0-9a-f]{64}$")]


class Phase(StrEnum):
    """Display only, derived from the conditions; nothing decides by it."""

    PENDING = "Pending"
    VALIDATING = "Validating"
    QUEUED = "Queued"
    TRAINING = "Training"
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class ConditionType(StrEnum):
    READY = "Ready"
    """The wanted state is reached: the run succeeded (kstatus)."""
    RECONCILING = "Reconciling"
    """Work goes on by itself (kstatus)."""
    STALLED = "Stalled"
    """Nothing moves until somebody acts, or the run has failed (kstatus)."""
    VALIDATED = "Validated"
    JOB_CREATED = "JobCreated"
    QUOTA_RESERVED = "QuotaReserved"
    RUNNING = "Running"
    CHECKPOINT_SAVED = "CheckpointSaved"
    ARTIFACTS_UPLOADED = "ArtifactsUploaded"
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    FINISHED = "Finished"
    """Either outcome: `kubectl wait` can't express OR."""
    TERMINATION_STUCK = "TerminationStuck"


class ConditionStatus(StrEnum):
    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Reason(StrEnum):
    """Reasons of a failure; the same words stand in conditions, Events, metrics and the termination message."""

    INVALID_SPEC = "InvalidSpec"
    CONFIG_ERROR = "ConfigError"
    DATA_ERROR = "DataError"
    MODEL_ERROR = "ModelError"
    REFERENCE_NOT_FOUND = "ReferenceNotFound"
    ACCESS_DENIED = "AccessDenied"
    STORAGE_UNAVAILABLE = "StorageUnavailable"
    OUT_OF_MEMORY = "OutOfMemory"
    CUDA_OUT_OF_MEMORY = "CUDAOutOfMemory"
    DIVERGED = "Diverged"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    PENDING_DEADLINE_EXCEEDED = "PendingDeadlineExceeded"
    BACKOFF_LIMIT_EXCEEDED = "BackoffLimitExceeded"
    PREEMPTION_LIMIT_EXCEEDED = "PreemptionLimitExceeded"
    POD_DISRUPTED = "PodDisrupted"
    ARTIFACT_MISSING = "ArtifactMissing"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    UNSCHEDULABLE = "Unschedulable"
    POD_SECURITY_VIOLATION = "PodSecurityViolation"
    QUOTA_EXCEEDED = "QuotaExceeded"
    JOB_DELETED = "JobDeleted"
    INTERNAL = "Internal"


class Milestone(StrEnum):
    """Reasons of conditions and Events that are no failures."""

    PENDING = "Pending"
    PROGRESSING = "Progressing"
    QUEUED = "Queued"
    RUNNING = "Running"
    RETRYING = "Retrying"
    SUSPENDED = "Suspended"
    USER_REQUESTED = "UserRequested"
    QUEUED_BY_KUEUE = "QueuedByKueue"
    RESUMED = "Resumed"
    OUTPUT_SHARED = "OutputShared"
    """Another FineTuneJob publishes at the same address: its `current.json` names the last to finish."""
    VALIDATED = "Validated"
    JOB_CREATED = "JobCreated"
    CHECKPOINT_SAVED = "CheckpointSaved"
    CHECKPOINT_FAILED = "CheckpointFailed"
    EVALUATED = "Evaluated"
    ADMITTED = "Admitted"
    ARTIFACTS_UPLOADED = "ArtifactsUploaded"
    ATTEMPT_FAILED = "AttemptFailed"
    MESSAGE_LOST = "MessageLost"
    """The Job completed, but its pod was removed before its message was read; the next attempt settles it."""
    PREEMPTED = "Preempted"
    COMPLETED = "Completed"
    EARLY_STOPPED = "EarlyStopped"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    NODE_UNREACHABLE = "NodeUnreachable"
    NOT_FINISHED = "NotFinished"


class Condition(Model):
    """As metav1.Condition (https://github.com/kubernetes/community, api-conventions.md, typical status properties)."""

    type: Annotated[str, Field(max_length=64, pattern=r"^[A-Za-z]+$")]
    """type of the condition."""
    status: ConditionStatus
    """status: True, False or Unknown."""
    observed_generation: Annotated[int, Field(ge=0)] | None = None
    """observedGeneration of the spec this was decided for."""
    last_transition_time: Time
    """lastTransitionTime of the status."""
    reason: ReasonText
    """reason in one CamelCase word."""
    message: Message = ""
    """message with cause and remedy in one sentence each."""


class Metric(Model):
    name: Annotated[str, Field(max_length=63)]
    """name of the metric."""
    value: Annotated[str, Field(max_length=64)]
    """value as a decimal string."""
    split: Annotated[str, Field(max_length=16)] | None = None
    """split the value was measured on: train, validation or test."""


class CheckpointStatus(Model):
    step: Annotated[int, Field(ge=0, le=MAX_COUNT)]
    """step of the optimizer that the training goes on from."""
    attempt: Annotated[int, Field(ge=1, le=MAX_COUNT)]
    """attempt that saved it."""
    uri: Uri
    """uri of its folder."""
    size: BytesQuantity
    """size of its files."""
    time: Time
    """time it was complete in the store."""
    metrics: Annotated[list[Metric], Field(max_length=MAX_CHECKPOINT_METRICS)] = []
    """metrics of the last evaluation before it."""


class EvaluationStatus(Model):
    step: Annotated[int, Field(ge=0, le=MAX_COUNT)]
    """step of the optimizer it was made at."""
    metrics: Annotated[list[Metric], Field(max_length=MAX_CHECKPOINT_METRICS)] = []
    """metrics on the validation rows, the one that chooses first."""
    is_best: bool = False
    """isBest: no evaluation before it was better."""


class MetricsStatus(Model):
    base: Annotated[list[Metric], Field(max_length=MAX_METRICS)] = []
    """base model's figures."""
    tuned: Annotated[list[Metric], Field(max_length=MAX_METRICS)] = []
    """tuned model's figures on the same rows."""


class DataStatus(Model):
    train_rows: Annotated[int, Field(ge=0)] = 0
    """trainRows used."""
    validation_rows: Annotated[int, Field(ge=0)] = 0
    """validationRows used."""
    test_rows: Annotated[int, Field(ge=0)] = 0
    """testRows used."""
    train_tokens: Annotated[int, Field(ge=0)] = 0
    """trainTokens after truncation, of one epoch."""
    truncated_rows: Annotated[int, Field(ge=0)] = 0
    """truncatedRows were longer than spec.training.maxLength."""
    digest: Digest | None = None
    """digest of the prepared rows."""
    report_uri: Annotated[str, Field(max_length=1280)] | None = None
    """reportURI of the data report."""


class MemoryStatus(Model):
    predicted_peak: Quantity | None = None
    """predictedPeak before training."""
    measured_peak: Quantity | None = None
    """measuredPeak of the training."""


class JobRefusal(Model):
    reason: ReasonText
    """reason in one word; Pending where only time is missing."""
    message: Message
    """message: what the API server said."""


class Attempt(Model):
    number: Annotated[int, Field(ge=1)]
    """number of the attempt within its stage."""
    stage: Annotated[str, Field(max_length=16)]
    """stage: prepare or train."""
    job: Annotated[str, Field(max_length=63)]
    """job is the name of the child Job."""
    job_uid: Annotated[str, Field(max_length=64)] | None = None
    """jobUID once the Job was seen."""
    start_time: Time | None = None
    """startTime of the first pod."""
    end_time: Time | None = None
    """endTime of the attempt."""
    active_seconds: Annotated[int, Field(ge=0)] = 0
    """activeSeconds with a running pod."""
    resumed_from_step: Annotated[int, Field(ge=0)] | None = None
    """resumedFromStep is the step that the attempt's last pod went on from; 0: it began anew."""
    refusal: JobRefusal | None = None
    """refusal of the API server to create the Job, until it was created."""
    cause: ReasonText | None = None
    """cause of the end."""
    message: Annotated[str, Field(max_length=MAX_ATTEMPT_MESSAGE_LENGTH)] | None = None
    """message: how it ended, where that was no success."""
    counted: bool = False
    """counted against backoffLimit."""


class Progress(Model):
    stage: Annotated[str, Field(max_length=16)] = ""
    """stage: prepare or train."""
    phase: Annotated[str, Field(max_length=16)] | None = None
    """phase the stage is in, such as fetch, tokenize, train or evaluate."""
    pod: Annotated[str, Field(max_length=253)] | None = None
    """pod that told it."""
    step: Annotated[int, Field(ge=0)] = 0
    """step of the optimizer."""
    total_steps: Annotated[int, Field(ge=0)] = 0
    """totalSteps planned."""
    percent: Annotated[int, Field(ge=0, le=100)] = 0
    """percent of the training's steps; 100 only when the run has succeeded."""
    estimated_remaining_seconds: Annotated[int, Field(ge=0)] | None = None
    """estimatedRemainingSeconds of the stage, from updateTime on."""
    estimated_completion_time: Time | None = None
    """estimatedCompletionTime of the stage: the same as a moment."""
    tokens_per_second: Annotated[int, Field(ge=0)] | None = None
    """tokensPerSecond of the latest steps, padding excluded."""
    metrics: Annotated[list[Metric], Field(max_length=MAX_METRICS)] = []
    """metrics of the latest step, such as train_loss."""
    last_evaluation: EvaluationStatus | None = None
    """lastEvaluation on the validation rows."""
    resumed_from_step: Annotated[int, Field(ge=0)] | None = None
    """resumedFromStep is the step that the pod began at; 0: at the beginning."""
    checkpoint_failure: Message | None = None
    """checkpointFailure: why the latest checkpoint could not be saved; the training goes on."""
    update_time: Time | None = None
    """updateTime of these values."""


class Artifacts(Model):
    uri: Uri
    """uri of the folder with the tuned model."""
    manifest_uri: Annotated[str, Field(max_length=1280)]
    """manifestURI of the run's manifest."""
    manifest_sha256: Annotated[str, Field(max_length=64)]
    """manifestSHA256 as the trainer read it back."""


class Failure(Model):
    reason: Reason
    """reason in one word."""
    message: Message
    """message: where, what was found, what must hold."""
    remedy: Message = ""
    """remedy: what to do."""
    retryable: bool = False
    """retryable: the same job may succeed when it is created again."""
    exit_code: Annotated[int, Field(ge=0, le=255)] | None = None
    """exitCode of the trainer."""


class ResolvedKey(StrEnum):
    """Keys of `resolved`: the automatic choices of the prepare stage which the train stage carries out."""

    PACKING = "packing"
    """`true` where samples share a row, `false` where rows are padded."""
    MICRO_BATCH_TOKENS = "microBatchTokens"
    """Most tokens one rank puts through the model at once; on a GPU the train stage may lower it."""
    LEARNING_RATE = "learningRate"
    EPOCHS = "epochs"
    TOTAL_STEPS = "totalSteps"
    """Optimizer steps planned."""
    PRECISION = "precision"
    """`Float32` or `BFloat16`; `Auto` where only the train stage's device can tell."""
    BEST_METRIC = "bestMetric"
    SEED = "seed"
    CHECKPOINT_SECONDS = "checkpointSeconds"
    """Seconds between two checkpoints, as planned."""
    CHECKPOINT_SIZE = "checkpointSize"
    """Size of one checkpoint as a quantity, known before the training: the pod's grace period follows from it."""
    TARGET_MODULES = "targetModules"
    """Names of the layers that got an adapter; known after the train stage has built the model."""
    EMBEDDINGS = "embeddings"
    """How many tokens the model is given embeddings for; where rows have tokens beyond those it has."""
    QUANTIZED_LAYERS = "quantizedLayers"
    """How many layers of the base hold their weights in few bits; where the method quantizes it."""
    TRAINABLE_PARAMETERS = "trainableParameters"
    DEVICE = "device"
    """`cpu`, or the name of the GPU; known in the train stage."""


Resolved = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=1024)]], Field(max_length=64)
]


class FineTuneJobStatus(Model):
    observed_generation: Annotated[int, Field(ge=-1)] = -1
    """observedGeneration of the spec; -1 before the first visit."""
    phase: Phase | None = None
    """phase for display, derived from the conditions."""
    reason: ReasonText | None = None
    """reason for display: of the failure or of what the run waits for, else where it stands."""
    metric: Annotated[str, Field(max_length=128)] | None = None
    """metric for display, of the tuned model and as name=value: the one that chose the checkpoint."""
    conditions: Annotated[
        list[Condition],
        Field(
            max_length=20, json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
        ),
    ] = []
    """conditions of the run."""
    run_digest: Digest | None = None
    """runDigest of resolved spec, data, base model and trainer image: the same inputs give the same digest."""
    trainer_image: Annotated[str, Field(max_length=512)] | None = None
    """trainerImage of all attempts, as it was chosen for the first."""
    resolved: Resolved = {}
    """resolved holds every automatic choice as decided."""
    warnings: Annotated[list[Message], Field(max_length=MAX_WARNINGS)] = []
    """warnings that did not stop the run."""
    data: DataStatus | None = None
    """data as it was read."""
    memory: MemoryStatus | None = None
    """memory of the train stage."""
    prepared_attempt: Annotated[int, Field(ge=1)] | None = None
    """preparedAttempt is the prepare attempt whose output the training reads."""
    prepared_sha256: Annotated[str, Field(max_length=64)] | None = None
    """preparedSHA256 of that attempt's prepared.json."""
    attempt_count: Annotated[int, Field(ge=0)] = 0
    """attemptCount of the current stage."""
    attempts: Annotated[list[Attempt], Field(max_length=MAX_ATTEMPTS)] = []
    """attempts, the last 10."""
    failed_attempts: Annotated[int, Field(ge=0)] = 0
    """failedAttempts were counted against runPolicy.backoffLimit, over both stages."""
    active_seconds: Annotated[int, Field(ge=0)] = 0
    """activeSeconds of all ended attempts, those no longer listed included."""
    preemption_count: Annotated[int, Field(ge=0)] = 0
    """preemptionCount of interruptions that nobody is to blame for: drained nodes, preemption, a signal."""
    lost_steps: Annotated[int, Field(ge=0)] = 0
    """lostSteps of the whole run: steps that were made again after an interruption, as far as it was seen."""
    lost_seconds: Annotated[int, Field(ge=0)] = 0
    """lostSeconds of the whole run: training time since the checkpoint that the run went on from."""
    checkpoints: Annotated[list[CheckpointStatus], Field(max_length=MAX_CHECKPOINTS)] = []
    """checkpoints in the store, the newest first."""
    checkpoint_request: Annotated[str, Field(max_length=256)] | None = None
    """checkpointRequest is the value of the annotation finetune.dev/checkpoint-now last passed on to a pod."""
    progress: Progress | None = None
    """progress of the run, best effort."""
    metrics: MetricsStatus | None = None
    """metrics of base and tuned model."""
    artifacts: Artifacts | None = None
    """artifacts after their manifest was read back."""
    failure: Failure | None = None
    """failure that ended the run."""
    start_time: Time | None = None
    """startTime of the first attempt."""
    completion_time: Time | None = None
    """completionTime of the run."""
    pending_since: Time | None = None
    """pendingSince: no pod has run since then; cleared while one runs."""


def build_time(moment: datetime) -> str:
    """Write a moment as Kubernetes does: RFC 3339, UTC, whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: str) -> datetime:
    """Read an RFC 3339 time.

    Raises:
        ValueError: the text is no RFC 3339 time.
    """
    return datetime.fromisoformat(text)


def build_message(text: str) -> str:
    """Cut a text to what conditions and Events may hold, marking the cut."""
    return wording.cut(text, MAX_MESSAGE_LENGTH)


def find_condition(conditions: Sequence[Condition], condition_type: ConditionType) -> Condition | None:
    """Return the condition of that type, if there is one."""
    return next((item for item in conditions if item.type == condition_type), None)


def is_true(conditions: Sequence[Condition], condition_type: ConditionType) -> bool:
    """Tell whether a condition is there and True."""
    found = find_condition(conditions, condition_type)
    return found is not None and found.status == ConditionStatus.TRUE


def update_condition(
    conditions: Sequence[Condition],
    condition_type: ConditionType,
    status: ConditionStatus,
    reason: str,
    message: str,
    *,
    generation: int,
    now: datetime,
) -> list[Condition]:
    """Return the conditions with one of them set; `lastTransitionTime` moves only when its status does."""
    old = find_condition(conditions, condition_type)
    moved = old is None or old.status != status
    new = Condition(
        type=condition_type,
        status=status,
        observed_generation=generation,
        last_transition_time=build_time(now) if moved or old is None else old.last_transition_time,
        reason=str(reason),
        message=build_message(message),
    )
    if old is None:
        return [*conditions, new]
    return [new if item is old else item for item in conditions]

"""What the operator reports: FineTuneJobStatus, its condition types and reasons.

Types and reasons are API: renaming one breaks users' alerts and `kubectl wait`. What every status has (conditions,
attempts, times) lies one folder up.
"""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from finetune_api.kinds.attempts import MAX_ATTEMPTS, Attempt
from finetune_api.kinds.object_model import Model
from finetune_api.kinds.status_conditions import Condition
from finetune_api.kinds.status_fields import Message, ReasonText, Time
from finetune_api.quantities import BytesQuantity, Quantity

MAX_METRICS = 32
MAX_WARNINGS = 16
MAX_CHECKPOINTS = 10
MAX_COUNT = 10**15
"""Greatest number of steps, seconds or tokens taken from a pod: what is beyond is no measurement (a choice)."""
MAX_CHECKPOINT_METRICS = 4
"""Of one checkpoint, and of one evaluation of a run in progress: the one that chooses, and what is read beside it."""

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
    """isBest: it is better than every evaluation before it."""


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
    """metric for display, as name=value: the one that chooses the weights, of the best evaluation or the end."""
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

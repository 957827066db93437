"""Every Prometheus series of ours: name, kind, help, labels and buckets, once, for code, alerts and dashboards.

Names follow https://prometheus.io/docs/practices/naming/. Labels are bounded: never a UID, an attempt or a step.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal


@dataclass(frozen=True, slots=True)
class Series:
    """One series; a counter's name carries `_total`, which client libraries append themselves."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


_STEP_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_REQUEST_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_CHECKPOINT_BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_JOB_BUCKETS = (60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0, 14400.0, 43200.0, 86400.0, 259200.0, 604800.0)

# The operator.
OPERATOR_BUILD_INFO = Series(
    "finetune_operator_build_info", "gauge", "Version of the operator.", ("version", "python", "kopf")
)
OPERATOR_RECONCILE_TOTAL = Series(
    "finetune_operator_reconcile_total", "counter", "Reconciles by result: success, error or requeue.", ("result",)
)
OPERATOR_RECONCILE_DURATION = Series(
    "finetune_operator_reconcile_duration_seconds", "histogram", "Time of one reconcile.", (), _REQUEST_BUCKETS
)
OPERATOR_QUEUE_DEPTH = Series("finetune_operator_queue_depth", "gauge", "FineTuneJobs waiting for a reconcile.")
OPERATOR_LAST_WATCH_EVENT = Series(
    "finetune_operator_last_watch_event_timestamp_seconds",
    "gauge",
    "Time of the last watch event, or of the last resync without drift.",
    ("resource",),
)
OPERATOR_RESYNC_DRIFT_TOTAL = Series(
    "finetune_operator_resync_drift_total", "counter", "Differences only the resync found.", ("kind",)
)
OPERATOR_API_REQUESTS_TOTAL = Series(
    "finetune_operator_api_requests_total", "counter", "Requests to the API server.", ("verb", "resource", "code")
)
OPERATOR_API_REQUEST_DURATION = Series(
    "finetune_operator_api_request_duration_seconds",
    "histogram",
    "Time of requests to the API server.",
    ("verb", "resource"),
    _REQUEST_BUCKETS,
)
OPERATOR_POD_REQUESTS_TOTAL = Series(
    "finetune_operator_pod_requests_total", "counter", "Running pods asked for their progress.", ("result",)
)
OPERATOR_EVENT_LOOP_LAG = Series(
    "finetune_operator_event_loop_lag_seconds", "gauge", "How late the event loop runs its timers."
)
JOBS = Series("finetune_jobs", "gauge", "FineTuneJobs by phase.", ("namespace", "phase"))
JOBS_CREATED_TOTAL = Series(
    "finetune_jobs_created_total", "counter", "FineTuneJobs seen for the first time.", ("namespace", "method")
)
JOBS_FINISHED_TOTAL = Series(
    "finetune_jobs_finished_total", "counter", "FineTuneJobs that ended.", ("namespace", "result", "reason")
)
JOB_ATTEMPTS_TOTAL = Series(
    "finetune_job_attempts_total",
    "counter",
    "Attempts that ended before the run did, by cause: disruption, error, oom or preempted.",
    ("namespace", "cause"),
)
JOB_DURATION = Series(
    "finetune_job_duration_seconds", "histogram", "From first attempt to end.", ("namespace", "result"), _JOB_BUCKETS
)
JOB_OLDEST_PENDING_AGE = Series(
    "finetune_job_oldest_pending_age_seconds", "gauge", "Age of the longest wait for a pod.", ("namespace",)
)
JOB_INFO = Series("finetune_job_info", "gauge", "Active FineTuneJobs.", ("namespace", "name", "method", "queue"))
JOB_PROGRESS = Series("finetune_job_progress_ratio", "gauge", "Progress of active FineTuneJobs.", ("namespace", "name"))
JOB_LOST_STEP_SECONDS_TOTAL = Series(
    "finetune_job_lost_step_seconds_total",
    "counter",
    "Training time of steps that were made again after an interruption.",
    ("namespace",),
)

# The trainer.
TRAINER_STEP = Series("finetune_trainer_step", "gauge", "Optimizer step reached.")
TRAINER_STEPS_PLANNED = Series("finetune_trainer_steps_planned", "gauge", "Optimizer steps planned.")
TRAINER_LOSS = Series("finetune_trainer_loss", "gauge", "Latest loss.", ("split",))
TRAINER_LEARNING_RATE = Series("finetune_trainer_learning_rate", "gauge", "Learning rate of the latest step.")
TRAINER_GRADIENT_NORM = Series("finetune_trainer_gradient_norm", "gauge", "Norm of the latest gradient.")
TRAINER_TOKENS_TOTAL = Series("finetune_trainer_tokens_total", "counter", "Real tokens trained on, padding excluded.")
TRAINER_NONFINITE_TOTAL = Series("finetune_trainer_nonfinite_total", "counter", "Losses that were NaN or infinite.")
TRAINER_STEP_DURATION = Series(
    "finetune_trainer_step_duration_seconds", "histogram", "Time of one optimizer step.", ("stage",), _STEP_BUCKETS
)
TRAINER_LAST_STEP = Series(
    "finetune_trainer_last_step_timestamp_seconds", "gauge", "Time of the latest optimizer step."
)
TRAINER_PHASE = Series("finetune_trainer_phase", "gauge", "1 for the phase the trainer is in.", ("phase",))
TRAINER_CHECKPOINT_DURATION = Series(
    "finetune_trainer_checkpoint_duration_seconds",
    "histogram",
    "Time from the state of a step to its checkpoint in the store.",
    (),
    _CHECKPOINT_BUCKETS,
)
TRAINER_CHECKPOINTS_TOTAL = Series(
    "finetune_trainer_checkpoints_total", "counter", "Checkpoints by result: success or error.", ("result",)
)
TRAINER_LAST_CHECKPOINT = Series(
    "finetune_trainer_last_checkpoint_timestamp_seconds",
    "gauge",
    "Time of the newest checkpoint; before the first one, when the training began.",
)
TRAINER_CHECKPOINT_BYTES = Series("finetune_trainer_checkpoint_bytes", "gauge", "Size of the newest checkpoint.")
TRAINER_CHECKPOINT_INTERVAL = Series(
    "finetune_trainer_checkpoint_interval_seconds", "gauge", "Planned time between two checkpoints."
)
TRAINER_S3_REQUESTS_TOTAL = Series(
    "finetune_trainer_s3_requests_total", "counter", "Requests to S3.", ("operation", "result")
)
TRAINER_S3_BYTES_TOTAL = Series(
    "finetune_trainer_s3_bytes_total", "counter", "Bytes moved from and to S3.", ("direction",)
)
TRAINER_S3_RETRIES_TOTAL = Series("finetune_trainer_s3_retries_total", "counter", "Requests to S3 that boto repeated.")
TRAINER_GPU_MEMORY = Series(
    "finetune_trainer_gpu_memory_bytes", "gauge", "GPU memory by kind: allocated, reserved, peak.", ("device", "kind")
)


class TrainerPhase(StrEnum):
    """What a stage is at, in the order of the first time; values of the label `phase`."""

    CHECK = "check"
    """Prepare: addresses and model."""
    FETCH = "fetch"
    READ = "read"
    """Prepare: rows, and what may be wrong with them."""
    TOKENIZE = "tokenize"
    UNPACK = "unpack"
    """Train: the base model out of its file."""
    LOAD = "load"
    EVALUATE = "evaluate"
    TRAIN = "train"
    PUBLISH = "publish"

"""The one place where figures of a run are recorded: Prometheus series, and the live progress beside them.

One object per `finetune_api.metrics.Series`; they live in a registry of this module, so nothing of the client library's
own appears beside them. `server` serves them. A figure that can't be recorded costs a log line, never the run: every
`record_` function swallows and logs.
"""

import functools
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import ParamSpec

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from finetune_api import metrics, quantities
from finetune_api.kinds.finetunejob.status import CheckpointStatus
from finetune_api.kinds.status_fields import parse_time
from finetune_api.metrics import Series, TrainerPhase
from finetune_trainer.telemetry import live

logger = logging.getLogger(__name__)

prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # they would be series that the contract doesn't name
REGISTRY = CollectorRegistry()

_Arguments = ParamSpec("_Arguments")


def _never_fails(function: Callable[_Arguments, None]) -> Callable[_Arguments, None]:
    @functools.wraps(function)
    def record(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> None:
        try:
            function(*args, **kwargs)
        except Exception:
            logger.warning("a metric could not be recorded", exc_info=True)

    return record


def _build_counter(series: Series) -> Counter:
    return Counter(series.name.removesuffix("_total"), series.help, series.labels, registry=REGISTRY)


def _build_gauge(series: Series) -> Gauge:
    return Gauge(series.name, series.help, series.labels, registry=REGISTRY)


def _build_histogram(series: Series) -> Histogram:
    return Histogram(series.name, series.help, series.labels, registry=REGISTRY, buckets=series.buckets)


_STEP = _build_gauge(metrics.TRAINER_STEP)
_STEPS_PLANNED = _build_gauge(metrics.TRAINER_STEPS_PLANNED)
_LOSS = _build_gauge(metrics.TRAINER_LOSS)
_LEARNING_RATE = _build_gauge(metrics.TRAINER_LEARNING_RATE)
_GRADIENT_NORM = _build_gauge(metrics.TRAINER_GRADIENT_NORM)
_TOKENS = _build_counter(metrics.TRAINER_TOKENS_TOTAL)
_NONFINITE = _build_counter(metrics.TRAINER_NONFINITE_TOTAL)
_STEP_DURATION = _build_histogram(metrics.TRAINER_STEP_DURATION)
_LAST_STEP = _build_gauge(metrics.TRAINER_LAST_STEP)
_PHASE = _build_gauge(metrics.TRAINER_PHASE)
_CHECKPOINT_DURATION = _build_histogram(metrics.TRAINER_CHECKPOINT_DURATION)
_CHECKPOINTS = _build_counter(metrics.TRAINER_CHECKPOINTS_TOTAL)
_LAST_CHECKPOINT = _build_gauge(metrics.TRAINER_LAST_CHECKPOINT)
_CHECKPOINT_BYTES = _build_gauge(metrics.TRAINER_CHECKPOINT_BYTES)
_CHECKPOINT_INTERVAL = _build_gauge(metrics.TRAINER_CHECKPOINT_INTERVAL)
_S3_REQUESTS = _build_counter(metrics.TRAINER_S3_REQUESTS_TOTAL)
_S3_BYTES = _build_counter(metrics.TRAINER_S3_BYTES_TOTAL)
_S3_RETRIES = _build_counter(metrics.TRAINER_S3_RETRIES_TOTAL)
_GPU_MEMORY = _build_gauge(metrics.TRAINER_GPU_MEMORY)


_checkpoint_seen: list[float] = []
"""Time of the newest checkpoint, or of the first step."""


def _note_checkpoint_time(moment: float) -> None:
    _checkpoint_seen[:] = [moment]
    _LAST_CHECKPOINT.set(moment)


@_never_fails
def record_phase(phase: str) -> None:
    """Set the phase the trainer is in; one of `metrics.TrainerPhase`."""
    for known in metrics.TrainerPhase:
        _PHASE.labels(known.value).set(known == phase)
    if phase == TrainerPhase.TRAIN and not _checkpoint_seen:
        # The age of the newest checkpoint counts from here.
        _note_checkpoint_time(time.time())
    live.STATE.record_phase(phase)


@_never_fails
def record_plan(total_steps: int) -> None:
    """Record the number of optimizer steps planned."""
    _STEPS_PLANNED.set(total_steps)
    live.STATE.record_plan(total_steps)


@_never_fails
def record_step(step: int, duration_seconds: float, stage: str = "train") -> None:
    """Record an optimizer step that was made just now."""
    _STEP.set(step)
    _STEP_DURATION.labels(stage).observe(duration_seconds)
    _LAST_STEP.set(time.time())
    live.STATE.record_step(step)


@_never_fails
def record_loss(loss: float, split: str) -> None:
    """Record the latest loss on a split."""
    _LOSS.labels(split).set(loss)
    if split == "train":
        live.STATE.record_loss(loss)


@_never_fails
def record_learning_rate(learning_rate: float) -> None:
    """Record the learning rate of the latest step."""
    _LEARNING_RATE.set(learning_rate)


@_never_fails
def record_gradient_norm(norm: float) -> None:
    """Record the norm of the latest gradient, before it is clipped."""
    _GRADIENT_NORM.set(norm)


@_never_fails
def record_tokens(num_tokens: int) -> None:
    """Add real tokens that were trained on, padding excluded."""
    _TOKENS.inc(num_tokens)
    live.STATE.record_tokens(num_tokens)


@_never_fails
def record_evaluation(step: int, figures: Mapping[str, float], best_metric: str, *, is_best: bool) -> None:
    """Record the validation rows' metrics at a step, of which `best_metric` chooses the weights that are kept."""
    live.STATE.record_evaluation(step, live.build_metrics(figures, best_metric), is_best=is_best)


@_never_fails
def record_resumed(step: int, lost_steps: int | None = None) -> None:
    """Record the step that this pod goes on from, 0 where it begins anew, before the first step is made.

    Args:
        step: of the checkpoint.
        lost_steps: steps of earlier pods that are made again, where they are known.
    """
    _STEP.set(step)
    live.STATE.record_resumed(step, lost_steps)


@_never_fails
def record_checkpoints(checkpoints: Sequence[CheckpointStatus]) -> None:
    """Record all checkpoints in the store, the newest first: those found, or left after old ones were deleted."""
    live.STATE.record_checkpoints(checkpoints)
    if checkpoints:
        _note_checkpoint_time(parse_time(checkpoints[0].time).timestamp())
        _CHECKPOINT_BYTES.set(int(quantities.parse_quantity(checkpoints[0].size)))


@_never_fails
def record_checkpoint(checkpoint: CheckpointStatus, duration_seconds: float | None = None) -> None:
    """Record a checkpoint that is complete in the store.

    Args:
        checkpoint: the newest from now on.
        duration_seconds: from the state of its step to its manifest.
    """
    _CHECKPOINTS.labels("success").inc()
    if duration_seconds is not None:
        _CHECKPOINT_DURATION.observe(duration_seconds)
    _note_checkpoint_time(parse_time(checkpoint.time).timestamp())
    _CHECKPOINT_BYTES.set(int(quantities.parse_quantity(checkpoint.size)))
    live.STATE.record_checkpoint(checkpoint)


@_never_fails
def record_checkpoint_failure(text: str) -> None:
    """Record that a checkpoint could not be saved, and why; a later one that is takes it back."""
    _CHECKPOINTS.labels("error").inc()
    live.STATE.record_checkpoint_failure(text)


@_never_fails
def record_warning(text: str) -> None:
    """Record what the stage's end must tell, however it ends."""
    live.STATE.record_warning(text)


@_never_fails
def record_checkpoint_interval(seconds: float) -> None:
    """Record the time planned between two checkpoints."""
    _CHECKPOINT_INTERVAL.set(seconds)


@_never_fails
def record_nonfinite() -> None:
    """Count a loss that was NaN or infinite."""
    _NONFINITE.inc()


@_never_fails
def record_s3_request(operation: str, result: str) -> None:
    """Count an answered request to S3.

    Args:
        operation: name of the S3 operation, such as `GetObject`.
        result: `success`, or `error`.
    """
    _S3_REQUESTS.labels(operation, result).inc()


@_never_fails
def record_s3_bytes(direction: str, num_bytes: int) -> None:
    """Add bytes moved: `in` from S3, `out` to S3."""
    _S3_BYTES.labels(direction).inc(num_bytes)


@_never_fails
def record_s3_retry(count: int = 1) -> None:
    """Count requests to S3 that were repeated."""
    _S3_RETRIES.inc(count)


@_never_fails
def record_gpu_memory(device: str, kind: str, num_bytes: int) -> None:
    """Record the memory of a GPU: `allocated`, `reserved` or `peak`."""
    _GPU_MEMORY.labels(device, kind).set(num_bytes)

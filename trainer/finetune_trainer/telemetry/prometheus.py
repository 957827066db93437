"""Prometheus series of the trainer: one object per `finetune_api.metrics.Series`, served on the metrics port.

The series live in a registry of this module, so nothing of the client library's own appears beside them. A figure that
can't be recorded costs a log line, never the run: every `record_` function and `start_exporter` swallow and log.
"""

import functools
import logging
import os
import time
from collections.abc import Callable
from typing import ParamSpec

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from finetune_api import metrics, run
from finetune_api.metrics import Series

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


def start_exporter(port: int | None = None) -> int | None:
    """Serve `/metrics` in a thread of its own; a port that is taken costs the figures, not the run.

    Args:
        port: port to listen on, 0 for a free one. Default: `FINETUNE_METRICS_PORT`, else the contract's port.

    Returns:
        The port that answers, or None when none could be opened.
    """
    try:
        wanted = int(os.environ.get(run.METRICS_PORT_VARIABLE, run.METRICS_PORT)) if port is None else port
        server, _ = prometheus_client.start_http_server(wanted, registry=REGISTRY)
    except (OSError, OverflowError, ValueError) as error:
        logger.warning("metrics are not served: %s", error)
        return None
    return int(server.server_port)


@_never_fails
def record_phase(phase: str) -> None:
    """Set the phase the trainer is in; one of `metrics.TrainerPhase`."""
    for known in metrics.TrainerPhase:
        _PHASE.labels(known.value).set(known == phase)


@_never_fails
def record_plan(total_steps: int) -> None:
    """Record the number of optimizer steps planned."""
    _STEPS_PLANNED.set(total_steps)


@_never_fails
def record_step(step: int, duration_seconds: float, stage: str = "train") -> None:
    """Record an optimizer step that was made just now."""
    _STEP.set(step)
    _STEP_DURATION.labels(stage).observe(duration_seconds)
    _LAST_STEP.set(time.time())


@_never_fails
def record_loss(loss: float, split: str) -> None:
    """Record the latest loss on a split."""
    _LOSS.labels(split).set(loss)


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

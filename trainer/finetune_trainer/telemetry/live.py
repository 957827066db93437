"""What this process tells of itself while it runs: the state behind `GET /progress`, and the wish for a checkpoint.

Written by the `record_` functions of `prometheus`, read by the server's threads; every access holds the lock.
"""

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from finetune_api.kinds.finetunejob.status import (
    MAX_CHECKPOINT_METRICS,
    MAX_CHECKPOINTS,
    CheckpointStatus,
    EvaluationStatus,
    Metric,
)
from finetune_api.kinds.status_fields import build_message
from finetune_api.live import LiveProgress
from finetune_trainer.telemetry import logs
from finetune_trainer.telemetry.pace import Pace


class LiveState:
    """Where the stage stands.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._lock, self._clock = threading.Lock(), clock
        self._known = LiveProgress()
        self._pace = Pace(clock)
        self._is_checkpoint_wanted = False
        self._warnings: list[str] = []

    def read_warnings(self) -> list[str]:
        """Return what the stage has warned of, in order."""
        with self._lock:
            return list(self._warnings)

    def record_warning(self, text: str) -> None:
        with self._lock:
            self._warnings.append(logs.scrub_text(text))

    def read(self) -> LiveProgress:
        """Return where the stage stands now."""
        with self._lock:
            step, total = self._known.step, self._known.total_steps
            if step is None or not total:
                return self._known
            figures = {
                "percent": min(100, 100 * step // total),
                "estimated_remaining_seconds": self._pace.estimate_remaining_seconds(max(0, total - step)),
                "tokens_per_second": self._pace.compute_tokens_per_second(),
            }
            return self._known.model_copy(update=figures)

    def begin(self, stage: str) -> None:
        """Begin a stage, of which nothing is known yet."""
        with self._lock:
            self._known, self._pace = LiveProgress(stage=stage), Pace(self._clock)
            self._is_checkpoint_wanted, self._warnings = False, []

    def record_phase(self, phase: str) -> None:
        with self._lock:
            self._update(phase=phase)
            self._pace.enter_phase(phase)

    def record_plan(self, total_steps: int) -> None:
        with self._lock:
            self._update(total_steps=total_steps)

    def record_resumed(self, step: int, lost_steps: int | None) -> None:
        with self._lock:
            self._update(resumed_from_step=step, lost_steps=lost_steps, step=step)
            self._pace.begin_at(step)

    def record_step(self, step: int) -> None:
        with self._lock:
            self._update(step=step)
            self._pace.record_step()

    def record_tokens(self, num_tokens: int) -> None:
        with self._lock:
            self._pace.record_tokens(num_tokens)

    def record_loss(self, loss: float) -> None:
        with self._lock:
            self._update(train_loss=write_figure(loss) if math.isfinite(loss) else None)

    def record_evaluation(self, step: int, metrics: Sequence[Metric], *, is_best: bool) -> None:
        with self._lock:
            self._update(last_evaluation=EvaluationStatus(step=step, metrics=list(metrics), is_best=is_best))
            self._pace.record_evaluation(step)

    def record_checkpoint(self, checkpoint: CheckpointStatus) -> None:
        with self._lock:
            others = [item for item in self._known.checkpoints or [] if item.uri != checkpoint.uri]
            self._update(checkpoints=[checkpoint, *others][:MAX_CHECKPOINTS], checkpoint_failure=None)

    def record_checkpoints(self, checkpoints: Sequence[CheckpointStatus]) -> None:
        with self._lock:
            self._update(checkpoints=list(checkpoints)[:MAX_CHECKPOINTS])

    def record_checkpoint_failure(self, text: str) -> None:
        with self._lock:
            self._update(checkpoint_failure=build_message(logs.scrub_text(text)))

    def request_checkpoint(self) -> None:
        """Note that somebody wants a checkpoint; once more before it was made is the same wish."""
        with self._lock:
            self._is_checkpoint_wanted = True

    def take_checkpoint_request(self) -> bool:
        """Tell whether a checkpoint is wanted, and take the wish back: whoever asks must save."""
        with self._lock:
            is_wanted, self._is_checkpoint_wanted = self._is_checkpoint_wanted, False
            return is_wanted

    def _update(self, **changes: object) -> None:
        # Through the model: what doesn't fit its bounds must not be told.
        self._known = LiveProgress.model_validate({**dict(self._known), **changes})


STATE = LiveState()
"""Of this process."""


def take_checkpoint_request() -> bool:
    """Tell whether a checkpoint is wanted, and take the wish back: whoever asks must save."""
    return STATE.take_checkpoint_request()


def build_metrics(metrics: Mapping[str, float], best_metric: str) -> list[Metric]:
    """Write figures of the validation rows as the status holds them, the one that chooses first, at most four."""
    names = sorted(metrics, key=lambda name: name != best_metric)[:MAX_CHECKPOINT_METRICS]
    return [
        Metric(name=name, value=write_figure(metrics[name]), split="validation")
        for name in names
        if math.isfinite(metrics[name])
    ]


def write_figure(value: float) -> str:
    """Write a figure as a decimal string of six digits."""
    return f"{value:.6g}"

"""How fast this pod trains, and how long it still needs: from its own steps and evaluations alone.

Steps of earlier pods don't count: they may have run on other hardware, and a resumed run would look faster than it is.
"""

import statistics
import time
from collections import deque
from collections.abc import Callable

from finetune_api.metrics import TrainerPhase

RECENT_STEPS = 64
"""The median of so many (a choice) follows a change within minutes and passes over a step that waited for the disk."""
_RECENT_EVALUATIONS = 8


class Pace:
    """Step and evaluation times of one training.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seconds: deque[float] = deque(maxlen=RECENT_STEPS)
        self._tokens: deque[int] = deque(maxlen=RECENT_STEPS)
        self._evaluations: deque[float] = deque(maxlen=_RECENT_EVALUATIONS)
        self._mark: float | None = None
        self._evaluating_since: float | None = None
        self._evaluated_step: int | None = None
        self._steps_between: int | None = None
        self._report_seconds = 0.0

    def enter_phase(self, phase: str) -> None:
        """Note that the training goes over to a phase."""
        now = self._clock()
        if self._evaluating_since is not None:
            self._end_evaluation(now - self._evaluating_since)
            self._evaluating_since = None
        if phase == TrainerPhase.EVALUATE:
            self._evaluating_since = now
        if phase == TrainerPhase.TRAIN and self._mark is None:
            self._mark = now

    def _end_evaluation(self, seconds: float) -> None:
        if self._mark is None:
            # Of the base model, on the rows that the tuned one will be evaluated on at the end.
            self._report_seconds += seconds
            return
        self._evaluations.append(seconds)
        self._mark += seconds

    def begin_at(self, step: int) -> None:
        """Note the step that this pod begins at."""
        self._evaluated_step = 0 if step == 0 else None

    def record_step(self) -> None:
        """Note that a step was made: with all the waiting since the one before, evaluations left out."""
        now = self._clock()
        if self._mark is not None:
            self._seconds.append(max(0.0, now - self._mark))
        self._mark = now

    def record_tokens(self, num_tokens: int) -> None:
        """Note the real tokens of the step that was made last."""
        self._tokens.append(num_tokens)

    def record_evaluation(self, step: int) -> None:
        """Note that the validation rows were evaluated at a step."""
        if self._evaluated_step is not None and step > self._evaluated_step:
            self._steps_between = step - self._evaluated_step
        self._evaluated_step = step

    def compute_tokens_per_second(self) -> int | None:
        """Return the real tokens per second of the recent steps; None before the first."""
        seconds = sum(self._seconds)
        return int(sum(self._tokens) / seconds) if seconds > 0 else None

    def estimate_remaining_seconds(self, steps_left: int) -> int | None:
        """Return how long the stage still takes; None before the first step."""
        if not self._seconds:
            return None
        seconds = steps_left * statistics.median(self._seconds) + self._report_seconds
        if self._steps_between and self._evaluations:
            seconds += steps_left // self._steps_between * statistics.median(self._evaluations)
        return round(seconds)

"""What can be watched while a model trains: series for Prometheus, log lines, a bar on a terminal, and metrics.csv.

A figure that can't be shown never stops a run. Log lines come at most every few seconds, the table has every step.
"""

import csv
import dataclasses
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from finetune_trainer.telemetry import prometheus

logger = logging.getLogger(__name__)

COLUMNS = ("step", "train_loss", "train_accuracy", "valid_loss", "valid_mean_token_accuracy")
"""Of metrics.csv: the columns users of hosted fine-tuning services know. Accuracy is that of tokens, or of rows where
each has one label."""
Table = list[dict[str, float | int]]
"""Of metrics.csv: a row a step, without what was not measured at it."""
_LOG_SECONDS = 5.0
"""Between two log lines (a choice): a run of an hour writes some 700."""


@dataclasses.dataclass(frozen=True, slots=True)
class StepFigures:
    """One optimizer step."""

    step: int
    loss: float
    accuracy: float
    learning_rate: float
    gradient_norm: float
    seconds: float
    num_tokens: int


class ProgressLog:
    """Shows one training.

    Args:
        total_steps: planned.
        clock: monotonic seconds.
        is_terminal: draw a bar instead of writing log lines.
    """

    def __init__(
        self,
        total_steps: int,
        clock: Callable[[], float] = time.monotonic,
        is_terminal: bool = False,
    ) -> None:
        self._total_steps, self._clock = total_steps, clock
        self._logged_at = -_LOG_SECONDS
        self._rows: dict[int, dict[str, float | int]] = {}
        self._bar = _build_bar() if is_terminal else None
        self._bar_task = self._bar.add_task("train", total=total_steps, figures="") if self._bar else None
        prometheus.record_plan(total_steps)

    def start(self) -> None:
        """Show the bar, if there is one."""
        if self._bar:
            self._bar.start()

    def stop(self) -> None:
        """Take the bar away, if there is one."""
        if self._bar:
            self._bar.stop()

    def record_step(self, figures: StepFigures) -> None:
        """Show a step that was made just now."""
        self._rows[figures.step] = {
            "step": figures.step,
            "train_loss": figures.loss,
            "train_accuracy": figures.accuracy,
        }
        prometheus.record_step(figures.step, figures.seconds)
        prometheus.record_loss(figures.loss, "train")
        prometheus.record_learning_rate(figures.learning_rate)
        prometheus.record_gradient_norm(figures.gradient_norm)
        prometheus.record_tokens(figures.num_tokens)
        if self._bar and self._bar_task is not None:
            self._bar.update(self._bar_task, completed=figures.step, figures=f"loss {figures.loss:.4f}")
        elif figures.step == self._total_steps or self._clock() - self._logged_at >= _LOG_SECONDS:
            self._logged_at = self._clock()
            logger.info(
                "step=%d of=%d loss=%.4f learning_rate=%.3g gradient_norm=%.3g seconds=%.3f tokens_per_second=%.0f",
                figures.step,
                self._total_steps,
                figures.loss,
                figures.learning_rate,
                figures.gradient_norm,
                figures.seconds,
                figures.num_tokens / max(figures.seconds, 1e-9),
            )

    def record_evaluation(self, step: int, metrics: dict[str, float]) -> None:
        """Show the validation rows' metrics at a step."""
        row = self._rows.setdefault(step, {"step": step})
        row["valid_loss"] = metrics["loss"]
        row["valid_mean_token_accuracy"] = metrics.get("token_accuracy", metrics.get("accuracy", 0.0))
        prometheus.record_loss(metrics["loss"], "validation")
        text = " ".join(f"{name}={value:.4f}" for name, value in metrics.items())
        if self._bar:
            self._bar.console.print(f"step {step}: {text}", highlight=False)
        else:
            logger.info("step=%d split=validation %s", step, text)

    def copy_table(self) -> Table:
        """Return the rows of metrics.csv so far, which no later step changes."""
        return [self._rows[step] for step in sorted(self._rows)]

    def resume(self, table: Table) -> None:
        """Take in the steps that were made before."""
        self._rows = {int(row["step"]): row for row in table}
        if self._bar and self._bar_task is not None:
            self._bar.update(self._bar_task, completed=max(self._rows, default=0))

    def save_table(self, path: Path) -> None:
        """Write metrics.csv."""
        write_table(self.copy_table(), path)


def write_table(table: Table, path: Path) -> None:
    """Write metrics.csv; numbers as Python shows them, which come back bit for bit."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(table)


def load_table(path: Path) -> Table:
    """Read what `write_table` wrote."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [{name: int(text) if name == "step" else float(text) for name, text in row.items() if text} for row in rows]


def _build_bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}"),
        console=Console(file=sys.stderr),
    )

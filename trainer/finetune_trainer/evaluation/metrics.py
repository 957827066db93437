"""Metrics of a split, gathered batch by batch without keeping logits.

Scores of several ranks are merged before they are computed, so the figures are those of the whole split. Metric names
are those of `finetune_api.tasks`.
"""

import math
from dataclasses import dataclass, field
from typing import Protocol, Self

from finetune_trainer.losses.parts import LossParts


class Scores(Protocol):
    """Gathers what the metrics of a task need."""

    def update(self, parts: LossParts) -> None:
        """Take in one batch."""

    def merge(self, other: Self) -> None:
        """Take in what another rank has gathered."""

    def compute(self) -> dict[str, float]:
        """Compute every metric of the task."""

    def compute_confusion(self) -> list[list[int]] | None:
        """Count rows by true label (outer) and predicted label (inner); None where a task has no labels."""


@dataclass
class TokenScores:
    """Loss, perplexity and accuracy over all target tokens."""

    total: float = 0.0
    num_targets: int = 0
    num_correct: int = 0

    def update(self, parts: LossParts) -> None:
        """Take in one batch."""
        self.total += float(parts.total)
        self.num_targets += parts.num_targets
        self.num_correct += int(parts.num_correct)

    def merge(self, other: "TokenScores") -> None:
        """Take in what another rank has gathered."""
        self.total += other.total
        self.num_targets += other.num_targets
        self.num_correct += other.num_correct

    def compute(self) -> dict[str, float]:
        """Compute every metric of the task."""
        mean = self.total / self.num_targets
        # exp overflows a float above 709; the cap keeps the report valid JSON.
        perplexity = math.exp(min(mean, 700.0))
        return {"loss": mean, "perplexity": perplexity, "token_accuracy": self.num_correct / self.num_targets}

    def compute_confusion(self) -> None:
        """Tokens have no confusion matrix."""
        return


@dataclass
class RowScores:
    """Metrics of rows with one label each, by scikit-learn."""

    num_labels: int
    total: float = 0.0
    targets: list[int] = field(default_factory=list)
    predictions: list[int] = field(default_factory=list)

    def update(self, parts: LossParts) -> None:
        """Take in one batch."""
        if parts.targets is None or parts.predictions is None:
            raise AssertionError("the loss of rows names them")
        self.total += float(parts.total)
        self.targets += parts.targets.tolist()
        self.predictions += parts.predictions.tolist()

    def merge(self, other: "RowScores") -> None:
        """Take in what another rank has gathered."""
        self.total += other.total
        self.targets += other.targets
        self.predictions += other.predictions

    def compute(self) -> dict[str, float]:
        """Compute every metric of the task; averages are over the labels that rows have or are given, as usual."""
        from sklearn import metrics

        found = {"accuracy": float(metrics.accuracy_score(self.targets, self.predictions))}
        for average in ("macro", "weighted"):
            precision, recall, f1, _ = metrics.precision_recall_fscore_support(
                self.targets, self.predictions, average=average, zero_division=0
            )
            found |= {f"f1_{average}": float(f1), f"precision_{average}": float(precision)}
            found |= {f"recall_{average}": float(recall)}
        return found | {"loss": self.total / len(self.targets)}

    def compute_confusion(self) -> list[list[int]]:
        """Count rows by true label (outer) and predicted label (inner)."""
        from sklearn import metrics

        matrix = metrics.confusion_matrix(self.targets, self.predictions, labels=range(self.num_labels))
        return [[int(count) for count in row] for row in matrix]

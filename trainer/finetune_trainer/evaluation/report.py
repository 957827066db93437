"""evaluation.json: base and tuned model on the same rows, and answers that anybody can check."""

from dataclasses import dataclass
from typing import Literal

from finetune_api.kinds.finetunejob.spec import Precision, Quantization, Task
from finetune_api.kinds.object_model import Model

SAMPLE_ROWS = 8
"""Rows whose logits stand in evaluation.json: enough to prove a published model, few enough to read (a choice)."""


class TokenLogit(Model):
    token: int
    """token id."""
    logit: float
    """logit of that token."""


class Sample(Model):
    """What the tuned model says about one row, evaluated alone: without padding, in the published model's precision."""

    row: int
    """row: index in the source, from 0."""
    input_ids: list[int]
    """inputIds of the row."""
    token_type_ids: list[int] | None = None
    """tokenTypeIds of the row, for models that tell pairs apart."""
    logits: list[float] | list[list[float]] | None = None
    """logits of each label, of the row or of each of its tokens; tasks with labels."""
    loss: float
    """loss of the row."""
    last: list[TokenLogit] | None = None
    """last position's most probable next tokens; language tasks."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a task's head says of one row for the report."""

    loss: float
    """Mean over the row's targets."""
    logits: list[float] | list[list[float]] | None = None
    """Of each label, of the row or of each of its tokens."""
    last: list[tuple[int, float]] | None = None
    """The most probable tokens behind the row, and their logits."""


class EvaluationReport(Model):
    """evaluation.json: base and tuned model on the same rows."""

    version: Literal[1] = 1
    """version of this format."""
    task: Task
    """task of the run."""
    split: str
    """split the figures were measured on."""
    rows: int
    """rows of that split."""
    precision: Precision
    """precision of the computation."""
    quantization: Quantization
    """quantization of the base model during the evaluation; load it the same way to get the same figures."""
    base: dict[str, float] | None = None
    """base model's metrics; absent where they were not asked for."""
    tuned: dict[str, float]
    """tuned model's metrics."""
    labels: list[str]
    """labels in the order of their ids."""
    base_confusion: list[list[int]] | None = None
    """baseConfusion: rows by true label (outer) and predicted label (inner), before training."""
    tuned_confusion: list[list[int]] | None = None
    """tunedConfusion: the same after training."""
    samples: list[Sample]
    """samples: the first rows of the split with the tuned model's answers."""

"""SequenceClassification in the train stage: a head with a logit per label, scored once per row.

Shapes: B rows, K labels.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from finetune_api.kinds.finetunejob.spec import FineTuneJobSpec
from finetune_trainer.batches import collate, packed_attention
from finetune_trainer.batches.collate import Batch, Padding
from finetune_trainer.evaluation import evaluator
from finetune_trainer.evaluation.metrics import RowScores
from finetune_trainer.evaluation.report import Answer
from finetune_trainer.losses import per_row
from finetune_trainer.losses.parts import LossParts


@dataclass(frozen=True, slots=True)
class SequenceClassificationHead:
    """Learns and measures one label per row."""

    labels: Sequence[str]
    """In the order of their ids."""

    def collate(self, rows: Sequence[Mapping[str, Any]], padding: Padding, *, is_packed: bool) -> Batch:
        """Make one micro-batch; its labels are [B]."""
        batch = collate.collate_inputs(rows, padding, is_packed=is_packed)
        return batch | {"labels": collate.collate_row_labels(rows)}

    def packing(self, model: Any) -> AbstractContextManager[None]:
        """Let a model take packed rows; its pooler and head then read the first token of each."""
        return packed_attention.packed(model, reads_first_tokens=True)

    def compute_loss(self, model: Any, batch: Batch, *, is_autocast: bool) -> LossParts:
        """Run the model on one micro-batch."""
        logits = evaluator.compute_logits(model, batch, is_autocast=is_autocast)  # [B, K]
        return per_row.compute_row_loss(logits, batch["labels"])

    def build_scores(self) -> RowScores:
        """Return what gathers accuracy, F1, precision and recall, and the confusion matrix."""
        return RowScores(len(self.labels))

    def build_answer(self, model: Any, batch: Batch, *, is_autocast: bool) -> Answer:
        """Return the logits of a row."""
        logits = evaluator.compute_logits(model, batch, is_autocast=is_autocast)
        parts = per_row.compute_row_loss(logits, batch["labels"])
        return Answer(parts.compute_mean(), logits=logits[0].tolist())


def build(spec: FineTuneJobSpec, labels: Sequence[str]) -> SequenceClassificationHead:
    """Build the head; nothing of it is chosen by the spec."""
    del spec
    return SequenceClassificationHead(labels)

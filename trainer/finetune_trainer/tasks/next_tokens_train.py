"""What tasks share in the train stage whose model learns next tokens with its own head; no task by itself.

Shapes: B rows, T tokens, V vocabulary.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from finetune_trainer.batches import collate, packed_attention
from finetune_trainer.batches.collate import Batch, Padding
from finetune_trainer.evaluation import evaluator
from finetune_trainer.evaluation.metrics import TokenScores
from finetune_trainer.evaluation.report import Answer
from finetune_trainer.losses import per_token
from finetune_trainer.losses.parts import LossParts

_TOP_TOKENS = 5
"""Tokens of the last position that an answer names (a choice)."""


@dataclass(frozen=True, slots=True)
class NextTokensHead:
    """Learns and measures every token that is a target, each from those before it."""

    def collate(self, rows: Sequence[Mapping[str, Any]], padding: Padding, *, is_packed: bool) -> Batch:
        """Make one micro-batch; its labels are [B, T], of packed rows [1, T]."""
        batch = collate.collate_inputs(rows, padding, is_packed=is_packed)
        return batch | {"labels": collate.collate_token_labels(rows, padding, is_packed=is_packed)}

    def packing(self, model: Any) -> AbstractContextManager[None]:
        """Let a model take packed rows."""
        return packed_attention.packed(model)

    def compute_loss(self, model: Any, batch: Batch, *, is_autocast: bool) -> LossParts:
        """Run the model on one micro-batch, without ever having its logits where its head allows that."""
        return per_token.compute_model_loss(model, batch, is_autocast=is_autocast)

    def build_scores(self) -> TokenScores:
        """Return what gathers loss, perplexity and accuracy."""
        return TokenScores()

    def build_answer(self, model: Any, batch: Batch, *, is_autocast: bool) -> Answer:
        """Return the most probable tokens behind the row."""
        logits = evaluator.compute_logits(model, batch, is_autocast=is_autocast)  # [1, T, V]
        parts = per_token.compute_token_loss(logits, batch["labels"])
        best = logits[0, -1].topk(min(_TOP_TOKENS, logits.shape[-1]))
        pairs = list(zip(best.indices.tolist(), best.values.tolist(), strict=True))
        return Answer(parts.compute_mean(), last=pairs)

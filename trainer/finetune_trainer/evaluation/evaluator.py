"""Base and tuned model on the same rows, token by token weighted, and the report anybody can check.

Logits are never kept: a batch is reduced to sums and predictions at once. Every rank evaluates its share; the figures
are those of the whole split. A loss that is no finite number ends the run, it never averages away.

Shapes: B rows, T tokens, V vocabulary, K labels.
"""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from finetune_api.errors import Diverged
from finetune_trainer import signals
from finetune_trainer.batches import sampler
from finetune_trainer.batches.collate import Batch, Batching
from finetune_trainer.batches.dataset import Rows
from finetune_trainer.evaluation.metrics import Scores
from finetune_trainer.evaluation.report import SAMPLE_ROWS, Sample, TokenLogit
from finetune_trainer.telemetry import prometheus

if TYPE_CHECKING:
    from finetune_trainer.tasks import TaskHead


@dataclass(frozen=True, slots=True)
class Evaluator:
    """Puts rows through a model."""

    head: "TaskHead"
    batching: Batching
    device: torch.device
    is_autocast: bool

    def evaluate(self, model: Any, rows: Rows, doing: str) -> Scores:
        """Score every row, this rank's share of them here and the others' merged in.

        Args:
            model: evaluated in eval mode and left in the mode it was in.
            rows: at least one per rank.
            doing: for messages: `evaluation at step 20`.

        Raises:
            Diverged: a loss is not finite.
            Interrupted: a signal came.
        """
        rank, world_size = _get_rank()
        share = sampler.share_rows(rows.lengths, world_size)[rank]
        # The largest first: a memory too small shows at once.
        cut = sampler.cut_micro_batches(
            [rows.lengths[row] for row in share],
            self.batching.micro_batch_tokens,
            is_packed=self.batching.is_packed,
        )
        scores = self.head.build_scores()
        with _evaluating(model):
            for positions in cut:
                if world_size == 1:
                    signals.check(doing)
                elif signals.is_received():
                    # The others are told where they wait for this one.
                    break
                batch = self.collate(
                    rows, [share[position] for position in positions], is_packed=self.batching.is_packed
                )
                parts = self.head.compute_loss(model, batch, is_autocast=self.is_autocast)
                if not math.isfinite(float(parts.total)):
                    prometheus.record_nonfinite()
                    raise Diverged(
                        f"the loss must be a finite number; {doing} gave {float(parts.total)}",
                        "lower spec.training.learningRate",
                    )
                scores.update(parts)
        return _merge(scores, world_size, doing)

    def build_samples(self, model: Any, rows: Rows) -> list[Sample]:
        """Evaluate the first rows one by one, as somebody with the published model would."""
        with _evaluating(model):
            return [self._build_sample(model, rows, index) for index in range(min(SAMPLE_ROWS, len(rows)))]

    def _build_sample(self, model: Any, rows: Rows, index: int) -> Sample:
        batch = self.collate(rows, [index], is_packed=False)
        # A float32 head on a bfloat16 base needs autocast; whoever loads both in bfloat16 computes the same.
        is_mixed = any(parameter.dtype == torch.bfloat16 for parameter in model.parameters())
        answer = self.head.build_answer(model, batch, is_autocast=self.is_autocast and is_mixed)
        row = rows[index]
        return Sample(
            row=rows.sources[index],
            input_ids=[int(token) for token in row["input_ids"]],
            token_type_ids=[int(kind) for kind in row["token_type_ids"]] if "token_type_ids" in row else None,
            logits=answer.logits,
            loss=answer.loss,
            last=[TokenLogit(token=token, logit=logit) for token, logit in answer.last] if answer.last else None,
        )

    def collate(self, rows: Rows, indices: list[int], *, is_packed: bool) -> Batch:
        """Make a batch of rows on the model's device."""
        batch = self.head.collate([rows[index] for index in indices], self.batching.padding, is_packed=is_packed)
        return {
            name: value.to(self.device) if isinstance(value, torch.Tensor) else value for name, value in batch.items()
        }


def compute_logits(model: Any, batch: Batch, *, is_autocast: bool) -> torch.Tensor:
    """Run a model on one batch and return its logits, in whatever shape it gives them."""
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
    with torch.autocast(batch["labels"].device.type, torch.bfloat16, enabled=is_autocast):
        logits: torch.Tensor = model(**inputs).logits
    return logits


@contextlib.contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def _get_rank() -> tuple[int, int]:
    if not torch.distributed.is_initialized():
        return 0, 1
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


def _merge(scores: Scores, world_size: int, doing: str) -> Scores:
    """Bring together what all ranks have gathered, in the order of the ranks.

    Raises:
        Interrupted: a signal came to one of them.
    """
    if world_size == 1:
        return scores
    gathered: list[Any] = [None] * world_size
    torch.distributed.all_gather_object(gathered, (scores, signals.is_received()))
    if any(is_stopped for _, is_stopped in gathered):
        raise signals.build_interrupted(doing)
    merged: Scores = gathered[0][0]
    for other, _ in gathered[1:]:
        merged.merge(other)
    return merged

"""The training loop: `transformers.Trainer` with our order of rows, our loss, our evaluation and our choice of weights.

A step's rows come as one item; how they are cut into micro-batches is ours (`batching`), so that a step may have any
number of them. Nothing is pickled: best weights and checkpoints are ours, in place of the stock ones. The step that
goes wrong is named: the loss is checked before the weights are touched, the norm of the gradient right after its step;
either way nothing of it is published.
"""

import contextlib
import logging
import math
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import torch
import transformers
from torch.utils.data import DataLoader
from transformers import TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME

from finetune_api.errors import Diverged
from finetune_trainer import signals
from finetune_trainer.batches import collate, sampler
from finetune_trainer.batches.collate import Batch, Batching
from finetune_trainer.batches.dataset import Rows
from finetune_trainer.batches.sampler import StepOrder
from finetune_trainer.checkpoints.best import BestWeights
from finetune_trainer.checkpoints.state import Position, TrainingState
from finetune_trainer.data.samples import IGNORED
from finetune_trainer.evaluation.evaluator import Evaluator
from finetune_trainer.tasks import TaskHead
from finetune_trainer.telemetry import prometheus
from finetune_trainer.telemetry.progress import ProgressLog, StepFigures
from finetune_trainer.training.checkpointing import Checkpointing

logger = logging.getLogger(__name__)

_EXPLOSION_STEPS = 5
_EXPLOSION_FACTOR = 3.0
_EXPLOSION_MARGIN = 5.0
"""Training has blown up when the mean loss of 5 steps is above 3 times the first step's plus 5 (a choice): a vocabulary
of 50,000 guessed at random costs 10.8, so even a model that has forgotten all stays below."""
_DIVERGED_REMEDY = "lower spec.training.learningRate"


class FineTuneTrainer(transformers.Trainer):
    """Trains a model on rows.

    Args:
        model: with its adapter, or frozen as the method wants.
        arguments: from `build_arguments`.
        rows: to train on.
        validation: to choose the weights by; empty: none is chosen.
        head: of the task.
        batching: how rows are put together.
        is_autocast: as for `TaskHead.compute_loss`.
        evaluator: for the validation rows.
        best: keeper of the weights.
        best_metric: name of the metric it goes by.
        batch_size: rows per optimizer step over all ranks.
        progress: where figures go.
        checkpointing: what saves this training's state.
    """

    loss_is_scaled_for_ga = True

    def __init__(
        self,
        model: Any,
        arguments: TrainingArguments,
        *,
        rows: Rows,
        validation: Rows,
        head: TaskHead,
        batching: Batching,
        is_autocast: bool,
        evaluator: Evaluator,
        best: BestWeights,
        best_metric: str,
        batch_size: int,
        progress: ProgressLog,
        checkpointing: Checkpointing,
    ) -> None:
        super().__init__(model=model, args=arguments, train_dataset=rows, eval_dataset=validation)
        self.remove_callback(transformers.PrinterCallback)
        self._rows, self._validation = rows, validation
        self._head, self._batching, self._is_autocast = head, batching, is_autocast
        self._evaluator = evaluator
        self._best, self._best_metric = best, best_metric
        self._batch_size, self._progress = batch_size, progress
        self._checkpointing, restored = checkpointing, checkpointing.restored
        before = restored.state if restored else TrainingState(position=Position(step=0))
        self._recent = deque(before.recent_losses, maxlen=_EXPLOSION_STEPS)
        self._first_loss, self.num_tokens = before.first_loss, before.num_tokens
        self.is_early_stopped = before.is_early_stopped
        self.state.global_step = before.position.step
        self._num_correct = torch.zeros((), dtype=torch.int64)
        self._num_targets = self._num_tokens = 0
        self._step_began = time.monotonic()
        self._is_save_agreed = self._is_stop_agreed = False
        checkpointing.attach(self, best, progress)

    def get_train_dataloader(self) -> Any:
        """Give one optimizer step after the other, as this rank's micro-batches of it."""
        order = StepOrder(
            self._rows.lengths,
            self._batch_size,
            self.args.seed,
            rank=self.args.process_index,
            num_ranks=self.args.world_size,
            is_packed=self._batching.is_packed,
            first_step=self.state.global_step,
        )
        # Not prepared by accelerate, which would deal the steps out again: the order has done so.
        return DataLoader(
            self._rows,  # type: ignore[arg-type] # a map-style data set by its methods, not by inheritance
            batch_sampler=order,
            collate_fn=self._collate_step,
            # Its own, since each epoch's iterator draws a number: dropout's must not depend on how often one is made.
            generator=torch.Generator(),
        )

    def _collate_step(self, rows: list[dict[str, Any]]) -> list[Batch]:
        if not rows:
            # A rank without a row of a short last step goes along with one of which nothing is learned.
            idle = self._collate([self._rows[0]])
            idle["labels"].fill_(IGNORED)
            return [idle]
        lengths = [len(row["input_ids"]) for row in rows]
        cut = sampler.cut_micro_batches(lengths, self._batching.micro_batch_tokens, is_packed=self._batching.is_packed)
        return [self._collate([rows[position] for position in positions]) for positions in cut]

    def _collate(self, rows: list[dict[str, Any]]) -> Batch:
        return self._head.collate(rows, self._batching.padding, is_packed=self._batching.is_packed)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], torch.Tensor]:
        """Take one optimizer step's micro-batches and count their targets over all ranks."""
        steps, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        batches = [batch for step in steps for batch in step]
        numbers = [sum(map(collate.count_targets, batches)), sum(map(collate.count_tokens, batches))]
        # Ranks that wait for each other must agree when to save, and when to stop.
        wishes = [int(self._checkpointing.is_due), int(signals.is_received())]
        total = self.accelerator.reduce(torch.tensor(numbers + wishes).to(device), "sum")
        self._num_tokens = int(total[1])
        self._is_save_agreed, self._is_stop_agreed = bool(total[2]), bool(total[3])
        self._num_correct = torch.zeros((), dtype=torch.int64, device=device)
        self._num_targets = 0
        self._step_began = time.monotonic()
        return steps, total[0]

    def training_step(
        self, model: Any, inputs: Any, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """Go forward and backward through the micro-batches of one optimizer step: a list, an item of our loader.

        Raises:
            Diverged: the loss is not finite; the weights are still those of the step before.
            Interrupted: a signal came.
        """
        step = self.state.global_step + 1
        self._reach_mark(step)
        total = torch.zeros((), device=self.args.device)
        for number, batch in enumerate(inputs, start=1):
            if self.args.world_size == 1:
                signals.check(f"training at step {step}")
            # Ranks bring their gradients together once per step, however many micro-batches each has.
            is_last = number == len(inputs)
            with contextlib.nullcontext() if is_last else self.accelerator.no_sync(model):
                total += super().training_step(model, batch, num_items_in_batch)
        if not math.isfinite(float(total)):
            prometheus.record_nonfinite()
            raise Diverged(f"the loss must be a finite number; step {step} gave {float(total)}", _DIVERGED_REMEDY)
        self._checkpointing.leave()
        return total

    def _reach_mark(self, step: int) -> None:
        """Stand between two steps: where a training can be taken up again.

        Raises:
            Interrupted: a signal came to one of several ranks.
        """
        self._checkpointing.mark(Position(step=step - 1))
        if self._is_stop_agreed and self.args.world_size > 1:
            raise signals.build_interrupted(f"training at step {step}")
        if self._is_save_agreed and step > 1:
            self._checkpointing.save()

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Compute this micro-batch's share of the step's mean loss over all targets.

        Ranks average their gradients, so the share is multiplied by their number.
        """
        if return_outputs or num_items_in_batch is None:
            raise AssertionError("our own steps and evaluations ask for neither")
        parts = self._head.compute_loss(model, inputs, is_autocast=self._is_autocast)
        self._num_correct += parts.num_correct
        self._num_targets += parts.num_targets
        return parts.total / num_items_in_batch * self.accelerator.num_processes

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:  # noqa: ARG002 - inherited
        """Take in what the Trainer reports after each step.

        Raises:
            Diverged: the gradient is not finite, or the loss has exploded.
        """
        if "loss" not in logs:
            return
        step, loss = self.state.global_step, logs["loss"]
        self._check_explosion(step, loss, logs.get("grad_norm", 0.0))
        self.num_tokens += self._num_tokens
        self._progress.record_step(
            StepFigures(
                step=step,
                loss=loss,
                accuracy=int(self._num_correct) / max(1, self._num_targets),
                learning_rate=logs["learning_rate"],
                gradient_norm=logs.get("grad_norm", 0.0),
                seconds=time.monotonic() - self._step_began,
                num_tokens=self._num_tokens,
            )
        )
        _record_memory(self.args.device)

    def _check_explosion(self, step: int, loss: float, gradient_norm: float) -> None:
        if not math.isfinite(gradient_norm):
            raise Diverged(f"the gradient must be finite; step {step} gave {gradient_norm}", _DIVERGED_REMEDY)
        self._first_loss = loss if self._first_loss is None else self._first_loss
        self._recent.append(loss)
        limit = _EXPLOSION_FACTOR * self._first_loss + _EXPLOSION_MARGIN
        mean = sum(self._recent) / len(self._recent)
        if len(self._recent) == _EXPLOSION_STEPS and mean > limit:
            raise Diverged(
                f"the loss must not explode; its mean over the {_EXPLOSION_STEPS} steps up to {step} is {mean:.4g}, "
                f"the first step's was {self._first_loss:.4g}",
                _DIVERGED_REMEDY,
            )

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Evaluate the validation rows, keep the weights if they are the best, and stop when patience runs out."""
        prometheus.record_phase("evaluate")
        step = self.state.global_step
        self._checkpointing.mark(Position(step=step, is_evaluation_pending=True))
        scores = self._evaluator.evaluate(self.model, self._validation, f"evaluation at step {step}")
        self._checkpointing.leave()
        metrics = self._checkpointing.latest = scores.compute()
        self._progress.record_evaluation(step, metrics)
        self._best.record(self.model, metrics[self._best_metric], step, self.args.process_index == 0)
        prometheus.record_evaluation(step, metrics, self._best_metric, is_best=self._best.step == step)
        if self._best.is_exhausted and step < self.args.max_steps:
            self.is_early_stopped = True
            self.control.should_training_stop = True
        prometheus.record_phase("train")
        # The library's own evaluation takes the wish back through its callbacks; kept, it would come true twice.
        self.control.should_evaluate = False
        return metrics

    def run(self) -> None:
        """Train to the end, from the beginning or from the checkpoint.

        Raises:
            Diverged: a loss or a gradient is not finite, or the loss has exploded.
            Interrupted: a signal came.
        """
        restored = self._checkpointing.restored
        if restored is None:
            self.train()
            return
        self._checkpointing.restore_weights(self.model)
        if restored.state.position.is_evaluation_pending:
            self.evaluate()
        if self.is_early_stopped or self.state.global_step >= self.args.max_steps:
            return
        # What the loop reads of its own state; everything else comes through the hooks below.
        step = self.state.global_step
        state = transformers.TrainerState(global_step=step, train_batch_size=self.args.per_device_train_batch_size)
        state.compute_steps(self.args, self.args.max_steps)
        # A folder of its own: ranks share the checkpoint's.
        folder = restored.folder / f"rank-{self.args.process_index}"
        folder.mkdir(exist_ok=True)
        state.save_to_json(str(folder / TRAINER_STATE_NAME))
        self.train(resume_from_checkpoint=str(folder))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Leave the weights as they are: `run` has put them back."""

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Put moments and schedule back, in place of pickled ones."""
        if checkpoint is not None:
            self._checkpointing.restore_optimizer(self.model, self.get_optimizer(), self.lr_scheduler)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Put the random numbers back, in place of pickled ones."""
        if checkpoint is not None:
            self._checkpointing.restore_random_state()

    def describe_state(self) -> TrainingState:
        """Return what a checkpoint needs of the loop; `Checkpointing` adds the rest."""
        return TrainingState(
            position=Position(step=self.state.global_step),
            is_early_stopped=self.is_early_stopped,
            scheduler=self.lr_scheduler.state_dict() if self.lr_scheduler is not None else {},
            learning_rates=[group["lr"] for group in self.optimizer.param_groups] if self.optimizer else [],
            first_loss=self._first_loss,
            recent_losses=list(self._recent),
            num_tokens=self.num_tokens,
        )

    def get_optimizer(self) -> Any:
        """Return torch's own optimizer, without accelerate's wrapper."""
        return getattr(self.optimizer, "optimizer", self.optimizer)


def _record_memory(device: torch.device) -> None:
    if device.type != "cuda":
        return
    name = str(device.index or 0)
    prometheus.record_gpu_memory(name, "allocated", torch.cuda.memory_allocated(device))
    prometheus.record_gpu_memory(name, "reserved", torch.cuda.memory_reserved(device))
    prometheus.record_gpu_memory(name, "peak", torch.cuda.max_memory_reserved(device))

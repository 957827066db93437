"""The training loop: `transformers.Trainer` with our order of rows, our loss, our evaluation and our choice of weights.

Only public hooks are overridden. Nothing is pickled: the best weights lie in safetensors on the scratch disk, and the
stock checkpoints are off. The step that goes wrong is named: the loss is checked before the weights are touched, the
norm of the gradient right after its step; either way nothing of it is published.
"""

import logging
import math
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader
from transformers import TrainingArguments

from finetune_api.errors import Diverged
from finetune_api.spec import EvaluationInterval, FineTuneJobSpec
from finetune_trainer import collate, exporter, stopping
from finetune_trainer.collate import GroupedOrder, Rows
from finetune_trainer.evaluation import Evaluator
from finetune_trainer.plan import Plan
from finetune_trainer.progress import ProgressLog, StepFigures
from finetune_trainer.scores import Objective

logger = logging.getLogger(__name__)

_EXPLOSION_STEPS = 5
_EXPLOSION_FACTOR = 3.0
_EXPLOSION_MARGIN = 5.0
"""Training has blown up when the mean loss of 5 steps is above 3 times the first step's plus 5 (a choice): a vocabulary
of 50,000 guessed at random costs 10.8, so even a model that has forgotten all stays below."""
_DIVERGED_REMEDY = "lower spec.training.learningRate"


class BestWeights:
    """Keeps the trained weights of the best evaluation on disk, and tells when it stops getting better.

    Args:
        path: file for the weights.
        is_greater_better: direction of the metric.
        patience: evaluations without improvement after which training ends; None: never.
        min_delta: least change that counts.
    """

    def __init__(self, path: Path, is_greater_better: bool, patience: int | None, min_delta: float) -> None:
        self._path, self._sign = path, 1.0 if is_greater_better else -1.0
        self._patience, self._min_delta = patience, min_delta
        self._reference: float | None = None
        self._num_stale = 0
        self.value: float | None = None
        self.step: int | None = None

    def record(self, model: Any, value: float, step: int, is_writer: bool) -> None:
        """Take in an evaluation; save the weights if they are the best so far.

        Args:
            model: the trained model.
            value: of the metric that decides.
            step: of the optimizer.
            is_writer: whether this rank writes the file.
        """
        if self.value is None or self._sign * (value - self.value) > 0:
            self.value, self.step = value, step
            if is_writer:
                partial = self._path.with_suffix(".partial")
                save_file(_get_trained(model), partial)
                partial.replace(self._path)
        # A crawl of tiny gains is not progress: staleness is measured from the last gain that counted.
        if self._reference is None or self._sign * (value - self._reference) > self._min_delta:
            self._reference, self._num_stale = value, 0
        else:
            self._num_stale += 1

    @property
    def is_exhausted(self) -> bool:
        """Whether patience has run out."""
        return self._patience is not None and self._num_stale >= self._patience

    def restore(self, model: Any) -> None:
        """Put the best weights back into the model of every rank; without an evaluation the last ones stay."""
        if self.step is None:
            return
        if torch.distributed.is_initialized():
            # Rank 0 may still be writing.
            torch.distributed.barrier()
        saved = load_file(self._path)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.requires_grad:
                    parameter.copy_(saved[name])


def _get_trained(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach().cpu().contiguous() for name, p in model.named_parameters() if p.requires_grad}


class FineTuneTrainer(transformers.Trainer):
    """Trains a model on rows.

    Args:
        model: with its adapter, or frozen as the method wants.
        arguments: from `build_arguments`.
        rows: to train on.
        validation: to choose the weights by; empty: none is chosen.
        objective: of the task.
        evaluator: for the validation rows.
        best: keeper of the weights.
        best_metric: name of the metric it goes by.
        batch_size: rows per optimizer step over all ranks.
        progress: where figures go.
    """

    loss_is_scaled_for_ga = True

    def __init__(
        self,
        model: Any,
        arguments: TrainingArguments,
        *,
        rows: Rows,
        validation: Rows,
        objective: Objective,
        evaluator: Evaluator,
        best: BestWeights,
        best_metric: str,
        batch_size: int,
        progress: ProgressLog,
    ) -> None:
        super().__init__(model=model, args=arguments, train_dataset=rows, eval_dataset=validation)
        self.remove_callback(transformers.PrinterCallback)
        self._rows, self._validation = rows, validation
        self._objective, self._evaluator = objective, evaluator
        self._best, self._best_metric = best, best_metric
        self._batch_size, self._progress = batch_size, progress
        self._recent: deque[float] = deque(maxlen=_EXPLOSION_STEPS)
        self._first_loss: float | None = None
        self._num_correct = self._num_targets = self._num_tokens = 0
        self._step_began = time.monotonic()
        self.is_early_stopped = False

    def get_train_dataloader(self) -> Any:
        """Give the rows in our order, an equal share to each rank."""
        loader: DataLoader[Any] = DataLoader(
            self._rows,  # type: ignore[arg-type] # a map-style data set by its methods, not by inheritance
            batch_size=self.args.per_device_train_batch_size,
            sampler=GroupedOrder(self._rows.lengths, self._batch_size, self.args.seed),
            collate_fn=lambda rows: collate.collate_rows(rows, self._evaluator.pad_token_id),
        )
        return self.accelerator.prepare(loader)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], torch.Tensor]:
        """Take one optimizer step's micro-batches and count their targets over all ranks."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        counts = torch.tensor(
            [
                sum(self._objective.count_targets(batch["labels"]) for batch in batches),
                sum(int(batch["attention_mask"].sum()) for batch in batches),
            ],
            device=device,
        )
        total = self.accelerator.reduce(counts, "sum")
        self._num_tokens = int(total[1])
        self._num_correct = self._num_targets = 0
        self._step_began = time.monotonic()
        return batches, total[0]

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Compute this micro-batch's share of the step's mean loss over all targets.

        Ranks average their gradients, so the share is multiplied by their number.
        """
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        parts = self._objective.compute_loss(outputs.logits, labels)
        self._num_correct += int((parts.predictions == parts.targets).sum())
        self._num_targets += parts.targets.numel()
        count = parts.targets.numel() if num_items_in_batch is None else num_items_in_batch
        loss = parts.total / count * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def training_step(
        self, model: Any, inputs: dict[str, torch.Tensor], num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """Go forward and backward through one micro-batch.

        Raises:
            Diverged: the loss is not finite; the weights are still those of the step before.
            Interrupted: a signal came.
        """
        step = self.state.global_step + 1
        stopping.check(f"training at step {step}")
        loss: torch.Tensor = super().training_step(model, inputs, num_items_in_batch)
        if not math.isfinite(float(loss)):
            exporter.record_nonfinite()
            raise Diverged(f"the loss must be a finite number; step {step} gave {float(loss)}", _DIVERGED_REMEDY)
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:  # noqa: ARG002 - inherited
        """Take in what the Trainer reports after each step.

        Raises:
            Diverged: the gradient is not finite, or the loss has exploded.
        """
        if "loss" not in logs:
            return
        step, loss = self.state.global_step, logs["loss"]
        self._check_explosion(step, loss, logs.get("grad_norm", 0.0))
        self._progress.record_step(
            StepFigures(
                step=step,
                loss=loss,
                accuracy=self._num_correct / max(1, self._num_targets),
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
        exporter.record_phase("evaluate")
        step = self.state.global_step
        scores = self._evaluator.evaluate(self.model, self._validation, f"evaluation at step {step}")
        metrics = scores.compute()
        self._progress.record_evaluation(step, metrics)
        self._best.record(self.model, metrics[self._best_metric], step, self.args.process_index == 0)
        if self._best.is_exhausted and step < self.state.max_steps:
            self.is_early_stopped = True
            self.control.should_training_stop = True
        exporter.record_phase("train")
        # The library's own evaluation takes the wish back through its callbacks; kept, it would come true twice.
        self.control.should_evaluate = False
        return metrics


def _record_memory(device: torch.device) -> None:
    if device.type != "cuda":
        return
    name = str(device.index or 0)
    exporter.record_gpu_memory(name, "allocated", torch.cuda.memory_allocated(device))
    exporter.record_gpu_memory(name, "reserved", torch.cuda.memory_reserved(device))
    exporter.record_gpu_memory(name, "peak", torch.cuda.max_memory_reserved(device))


def build_arguments(
    spec: FineTuneJobSpec, plan: Plan, scratch: Path, *, has_validation: bool, is_cpu: bool, is_autocast: bool
) -> TrainingArguments:
    """Translate the spec into transformers' words; whatever it would write to disk or report elsewhere is off."""
    every = spec.evaluation.every if has_validation else EvaluationInterval.END
    strategies = {EvaluationInterval.EPOCH: "epoch", EvaluationInterval.STEPS: "steps", EvaluationInterval.END: "no"}
    arguments = TrainingArguments(
        output_dir=str(scratch / "trainer"),
        per_device_train_batch_size=plan.micro_batch_size,
        gradient_accumulation_steps=plan.gradient_accumulation,
        max_steps=plan.total_steps,
        learning_rate=plan.learning_rate,
        lr_scheduler_type=spec.training.scheduler.value,
        warmup_steps=math.ceil(float(spec.training.warmup_fraction) * plan.total_steps),
        weight_decay=float(spec.training.weight_decay),
        optim="adamw_torch_fused",
        bf16=is_autocast,
        use_cpu=is_cpu,
        seed=spec.training.seed,
        data_seed=spec.training.seed,
        eval_strategy=strategies[every],
        eval_steps=spec.evaluation.every_steps if every == EvaluationInterval.STEPS else None,
        logging_strategy="steps",
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
    )
    if arguments.n_gpu > 1:
        # A process that sees more GPUs than it was given must not split its batches over them: one rank, one GPU.
        arguments._n_gpu = 1
    return arguments

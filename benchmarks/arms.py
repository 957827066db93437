"""The trainings that benchmarks compare: ours as the train stage runs it, the Hugging Face Trainer, TRL.

All get the same rows, the same weights, fused AdamW and as many rows per optimizer step; peers keep their own defaults.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from skewed_rows import map_rows

from finetune_api.kinds.finetunejob.spec import FineTuneJobSpec, Precision
from finetune_trainer.batches.collate import Batching, Padding
from finetune_trainer.checkpoints.best import BestWeights
from finetune_trainer.evaluation.evaluator import Evaluator
from finetune_trainer.planning.plan import Plan
from finetune_trainer.tasks import TaskHead
from finetune_trainer.tasks.next_tokens_train import NextTokensHead
from finetune_trainer.tasks.sequence_classification.train import SequenceClassificationHead
from finetune_trainer.telemetry.progress import ProgressLog
from finetune_trainer.training import arguments
from finetune_trainer.training import trainer as loop
from finetune_trainer.training.checkpointing import Checkpointing

Row = dict[str, Any]
_LEARNING_RATE = 1e-4
SEED = 13
LANGUAGE = NextTokensHead()
CLASSIFIER = SequenceClassificationHead(["a", "b"])


def build_spec(batch_size: int, gpus: int = 0) -> FineTuneJobSpec:
    """Return a spec that trains without evaluations."""
    return FineTuneJobSpec.model_validate(
        {
            "task": "CausalLM",
            "model": {"uri": "s3://models/bench/"},
            "data": [{"name": "bench", "train": {"uri": "s3://datasets/bench.jsonl"}}],
            "output": {"uri": "s3://runs/bench"},
            "resources": {"gpus": gpus},
            "training": {"batchSize": batch_size, "seed": SEED},
            "evaluation": {"every": "End"},
        }
    )


def build_ours(
    model: Any,
    rows: Sequence[Row],
    scratch: Path,
    *,
    batch_size: int,
    tokens: int,
    head: TaskHead = LANGUAGE,
    is_packed: bool = True,
    device: str = "cpu",
    is_autocast: bool = False,
) -> loop.FineTuneTrainer:
    """Build the train stage's own trainer for one epoch; the model is left ready for packed rows.

    Args:
        model: with adapters, if any.
        rows: to train on.
        scratch: for files.
        batch_size: rows per step.
        tokens: of a micro-batch.
        head: of the task.
        is_packed: samples share rows.
        device: of the model.
        is_autocast: products in bfloat16 beside float32 weights.
    """
    steps = -(-len(rows) // batch_size)
    batching = Batching(Padding(0), tokens, is_packed)
    plan = Plan(tokens, is_packed, _LEARNING_RATE, steps, Precision.FLOAT32, "loss")
    spec = build_spec(batch_size, gpus=0 if device == "cpu" else 1)
    if is_packed:
        # For good: nothing publishes this model. A context that nobody holds would end at once.
        model.packing = head.packing(model)
        model.packing.__enter__()
    return loop.FineTuneTrainer(
        model,
        arguments.build_arguments(spec, plan, scratch, has_validation=False, is_cpu=device == "cpu"),
        rows=map_rows(rows),
        validation=map_rows(rows[:1]),
        head=head,
        batching=batching,
        is_autocast=is_autocast,
        evaluator=Evaluator(head, batching, torch.device(device), is_autocast),
        best=BestWeights(scratch / "best", is_greater_better=False, patience=None, min_delta=0.0),
        best_metric="loss",
        batch_size=batch_size,
        progress=ProgressLog(steps),
        checkpointing=Checkpointing(None, None, scratch, rank=0, num_ranks=1, device=torch.device(device)),
    )


def build_hugging_face(
    model: Any, rows: Sequence[Row], scratch: Path, *, batch_size: int, **changes: Any
) -> transformers.Trainer:
    """Build the Hugging Face Trainer for one epoch: random order, padded to the longest row of a batch."""

    def pad(batch: list[Row]) -> dict[str, Any]:
        head = LANGUAGE if "labels" in batch[0] else CLASSIFIER
        return head.collate(batch, Padding(0), is_packed=False)

    return transformers.Trainer(
        model,
        transformers.TrainingArguments(**_build_arguments(scratch, batch_size) | changes),
        train_dataset=list(rows),
        data_collator=pad,
    )


def build_trl(
    model: Any, rows: Sequence[Row], scratch: Path, *, batch_size: int, longest: int, **changes: Any
) -> transformers.Trainer:
    """Build TRL's SFT trainer with its packing: rows of `longest` tokens, best-fit decreasing."""
    import datasets
    import trl
    from tokenizers import Tokenizer, models

    vocabulary = {f"t{index}": index for index in range(model.config.vocab_size)}
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="t3")),
        pad_token="t0",
        eos_token="t2",
        unk_token="t3",
    )
    data = datasets.Dataset.from_list([{"input_ids": row["input_ids"]} for row in rows])
    arguments = {"packing": True, "max_length": longest, "bf16": False, "gradient_checkpointing": False}
    config = trl.SFTConfig(**_build_arguments(scratch, batch_size) | arguments | changes)
    trainer: transformers.Trainer = trl.SFTTrainer(model, config, train_dataset=data, processing_class=tokenizer)
    return trainer


def _build_arguments(scratch: Path, batch_size: int) -> dict[str, Any]:
    return {
        "output_dir": str(scratch / "peer"),
        "per_device_train_batch_size": batch_size,
        "num_train_epochs": 1,
        "learning_rate": _LEARNING_RATE,
        "optim": "adamw_torch_fused",
        "use_cpu": not torch.cuda.is_available(),
        "seed": SEED,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "remove_unused_columns": False,
    }

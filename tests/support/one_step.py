"""The gradient of one optimizer step, for a given way of cutting its batch; also as one rank of two.

It is taken before it is clipped and used.
"""

import contextlib
import os
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from training_runs import build_config

from finetune_api.kinds.finetunejob.spec import Precision
from finetune_trainer.batches import dataset as row_files
from finetune_trainer.batches import packed_attention
from finetune_trainer.batches.collate import Batching, Padding
from finetune_trainer.checkpoints.best import BestWeights
from finetune_trainer.evaluation.evaluator import Evaluator
from finetune_trainer.planning.plan import Plan
from finetune_trainer.tasks.next_tokens_train import NextTokensHead
from finetune_trainer.telemetry.progress import ProgressLog
from finetune_trainer.training import trainer as loop
from finetune_trainer.training.arguments import build_arguments
from finetune_trainer.training.checkpointing import Checkpointing

BATCH_SIZE = 8


class Recorder(transformers.TrainerCallback):
    """Keeps the gradient of the first step."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.gradient: dict[str, torch.Tensor] = {}
        self._model = model

    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
        """Copy the gradients as the optimizer will see them."""
        pairs = ((name, item.grad) for name, item in self._model.named_parameters())
        self.gradient = {name: gradient.clone() for name, gradient in pairs if gradient is not None}


def build_evaluator(tokens: int = 64, *, is_packed: bool) -> Evaluator:
    """Return what puts rows through a language model in micro-batches of so many tokens."""
    return Evaluator(NextTokensHead(), Batching(Padding(1), tokens, is_packed), torch.device("cpu"), False)


def packing(model: Any, is_packed: bool) -> contextlib.AbstractContextManager[None]:
    """Let a language model take packed rows, or leave it as it is."""
    return packed_attention.packed(model) if is_packed else contextlib.nullcontext()


def compute_gradient(folder: Path, rows: Path, tokens: int, is_packed: bool, scratch: Path) -> dict[str, Any]:
    """Make one step on the eight rows, in micro-batches of so many tokens, and return its gradient."""
    spec = build_config("CausalLM", "decoder", {}, {"method": {"kind": "Full"}, "training": {"batchSize": 8}}).spec
    chosen = Plan(tokens, is_packed, 1e-3, 1, Precision.FLOAT32, "loss")
    arguments = build_arguments(spec, chosen, scratch, has_validation=False, is_cpu=True)
    # The norm differs from cut to cut in its last digits: clipping would spread that over every number.
    arguments.max_grad_norm = 1e9
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    trainer = loop.FineTuneTrainer(
        model,
        arguments,
        rows=row_files.load_rows(rows),
        validation=row_files.load_rows(rows.with_name("none.parquet")),
        head=NextTokensHead(),
        batching=Batching(Padding(1), tokens, is_packed),
        is_autocast=False,
        evaluator=build_evaluator(tokens, is_packed=is_packed),
        best=BestWeights(scratch / "best", is_greater_better=False, patience=None, min_delta=0.0),
        best_metric="loss",
        batch_size=BATCH_SIZE,
        progress=ProgressLog(1),
        checkpointing=Checkpointing(None, None, scratch, rank=0, num_ranks=1, device=torch.device("cpu")),
    )
    recorder = Recorder(model)
    trainer.add_callback(recorder)
    with packing(model, is_packed):
        trainer.train()
    return recorder.gradient


def save_gradient_of_rank(rank: int, port: int, folder: Path, rows: Path, output: Path) -> None:
    """Be one of two ranks in a process of its own; rank 0 writes the gradient."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
    # accelerate warns where nobody has said how many threads a rank may take.
    place |= {"OMP_NUM_THREADS": 1}
    os.environ.update({name: str(value) for name, value in place.items()} | {"MASTER_ADDR": "127.0.0.1"})
    torch.set_num_threads(1)
    found = compute_gradient(folder, rows, 40, True, output.parent)
    if rank == 0:
        save_file(found, output)
    torch.distributed.destroy_process_group()

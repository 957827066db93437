"""The loop: gradients that don't depend on how a batch is cut, the choice of weights, and when training is given up."""

import multiprocessing
import socket
from collections import deque
from pathlib import Path
from typing import Any

import one_step
import pytest
import tiny_models
import torch
import training_runs
import transformers
from safetensors.torch import load_file

from finetune_api.errors import Diverged, Interrupted
from finetune_api.kinds.finetunejob.spec import Precision
from finetune_trainer import signals, tasks
from finetune_trainer.batches import dataset
from finetune_trainer.batches.collate import Padding
from finetune_trainer.checkpoints.best import BestWeights
from finetune_trainer.losses import per_token
from finetune_trainer.model import load, method
from finetune_trainer.planning.plan import Plan
from finetune_trainer.tasks.next_tokens_train import NextTokensHead
from finetune_trainer.training import trainer as loop
from finetune_trainer.training.arguments import build_arguments


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("loop")
    tiny_models.build_decoder(folder / "decoder")
    (folder / "rows.parquet").write_bytes(training_runs.build_parquet("InstructionTuning", 8, seed=3))
    for name in ("rows", "none"):
        dataset.unpack_rows(folder / f"{name}.parquet")
    torch.set_num_threads(1)
    return folder


@pytest.fixture(scope="module")
def whole_batch_gradient(folder: Path) -> dict[str, torch.Tensor]:
    return one_step.compute_gradient(folder / "decoder", folder / "rows.parquet", 10_000, False, folder)


def measure_difference(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> float:
    assert left.keys() == right.keys()
    return max(float((left[name] - right[name]).abs().max()) for name in left)


@pytest.mark.parametrize("is_packed", [True, False], ids=["packed", "padded"])
@pytest.mark.parametrize("tokens", [1, 30, 70, 10_000])
def test_micro_batches_of_any_size_give_the_gradient_of_the_whole_padded_batch(
    folder: Path, whole_batch_gradient: dict[str, torch.Tensor], tokens: int, is_packed: bool
) -> None:
    found = one_step.compute_gradient(folder / "decoder", folder / "rows.parquet", tokens, is_packed, folder)

    assert measure_difference(found, whole_batch_gradient) < 1e-6


def test_two_ranks_give_the_gradient_of_one(folder: Path, whole_batch_gradient: dict[str, torch.Tensor]) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # Not forked: tests before this one may have left autograd with threads of its own.
    context = multiprocessing.get_context("spawn")
    arguments = (folder / "decoder", folder / "rows.parquet", folder / "of-two-ranks")
    ranks = [context.Process(target=one_step.save_gradient_of_rank, args=(rank, port, *arguments)) for rank in (0, 1)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(120)

    assert [rank.exitcode for rank in ranks] == [0, 0]
    assert measure_difference(load_file(folder / "of-two-ranks"), whole_batch_gradient) < 1e-6


WARM_UPS = [("0.03", 1, 0), ("0.03", 4, 1), ("0.1", 125, 13), ("0.99", 10, 9), ("0", 10, 0)]


@pytest.mark.parametrize(("fraction", "total", "want"), WARM_UPS)
def test_at_least_one_step_has_its_learning_rate(tmp_path: Path, fraction: str, total: int, want: int) -> None:
    spec = training_runs.build_config("CausalLM", "decoder", {}, {"training": {"warmupFraction": fraction}}).spec
    chosen = Plan(64, False, 1e-3, total, Precision.FLOAT32, "loss")

    arguments = build_arguments(spec, chosen, tmp_path, has_validation=False, is_cpu=True)

    assert arguments.warmup_steps == want


def test_a_process_that_sees_several_gpus_uses_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What the driver would count; torch itself sees none on this machine, which transformers doesn't mind.
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    spec = training_runs.build_config("CausalLM", "decoder", {}, {}).spec
    chosen = Plan(64, False, 1e-3, 10, Precision.FLOAT32, "loss")

    found = build_arguments(spec, chosen, tmp_path, has_validation=False, is_cpu=False)

    assert transformers.TrainingArguments(output_dir=str(tmp_path)).n_gpu == 4
    # Asked as transformers' Trainer does when it splits a batch, also once more after it has found its device.
    assert (found.n_gpu, found.device, found.n_gpu) == (1, torch.device("cpu"), 1)


def test_an_evaluation_leaves_the_gradients_of_an_nf4_model_as_they_were(folder: Path) -> None:
    config = training_runs.build_config("CausalLM", "decoder", {}, {"method": {"kind": "LoRA", "quantization": "NF4"}})
    task, head = tasks.find_preparation(config.spec.task), NextTokensHead()
    device = torch.device("cpu")
    torch.manual_seed(0)
    loaded = load.load_base(
        folder / "decoder",
        config.spec,
        task=task,
        labels=[],
        precision=Precision.FLOAT32,
        device=device,
    )
    tuned = method.apply_method(loaded, config.spec, task).train()
    split = dataset.load_rows(folder / "rows.parquet")
    batch = head.collate([split[0], split[1]], Padding(1), is_packed=False)

    def compute() -> dict[str, torch.Tensor]:
        torch.manual_seed(1)
        tuned.zero_grad()
        head.compute_loss(tuned, batch, is_autocast=False).total.backward()
        return {name: item.grad.clone() for name, item in tuned.named_parameters() if item.grad is not None}

    before = compute()
    one_step.build_evaluator(is_packed=False).evaluate(tuned, split, "a test")

    assert len(before) == 28
    assert measure_difference(compute(), before) == 0.0


def test_a_model_whose_pad_token_is_its_stop_token_learns_to_stop(folder: Path) -> None:
    tuned = transformers.AutoModelForCausalLM.from_pretrained(folder / "decoder", dtype=torch.float32)
    stop = tuned.config.eos_token_id
    short, long = [10, 20, 30, stop], [11, 21, 31, 41, 51, 61, stop]
    batch = NextTokensHead().collate(
        [{"input_ids": row, "labels": row} for row in (short, long)], Padding(stop), is_packed=False
    )
    assert batch["input_ids"][0].tolist() == [*short, stop, stop, stop]
    assert batch["labels"][0].tolist() == [-100, *short[1:], -100, -100, -100]
    labels, optimizer = batch.pop("labels"), torch.optim.AdamW(tuned.parameters(), 1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        per_token.compute_token_loss(tuned(**batch).logits, labels).total.backward()
        optimizer.step()

    answer = tuned.eval().generate(torch.tensor([[10, 20]]), max_new_tokens=8, do_sample=False, pad_token_id=stop)

    assert answer[0].tolist() == short


def build_best(
    path: Path, *, patience: int | None = None, min_delta: float = 0.0, is_greater: bool = True
) -> BestWeights:
    return BestWeights(path / "best", is_greater_better=is_greater, patience=patience, min_delta=min_delta)


CHOICES = {
    "accuracy: the greatest": (True, [0.5, 0.8, 0.7], 2, 0.8),
    "loss: the smallest": (False, [0.5, 0.8, 0.4], 3, 0.4),
    "of equals the first": (True, [0.8, 0.8], 1, 0.8),
}


@pytest.mark.parametrize(("is_greater", "values", "want_step", "want_value"), CHOICES.values(), ids=CHOICES.keys())
def test_the_weights_of_the_best_evaluation_come_back(
    tmp_path: Path, is_greater: bool, values: list[float], want_step: int, want_value: float
) -> None:
    layer = torch.nn.Linear(2, 1)
    layer.bias.requires_grad_(False)
    best = build_best(tmp_path, is_greater=is_greater)
    for step, value in enumerate(values, start=1):
        layer.weight.data.fill_(float(step))
        best.record(layer, value, step, True)

    best.restore(layer)

    assert (best.step, best.state.value, layer.weight[0, 0].item()) == (want_step, want_value, want_step)


PATIENCE = {
    "without early stopping": (None, 0.0, [0.5, 0.4, 0.3, 0.2], False),
    "two stale evaluations use up a patience of two": (2, 0.0, [0.5, 0.4, 0.4], True),
    "an improvement starts the count anew": (2, 0.0, [0.5, 0.4, 0.6, 0.5], False),
    "a gain below minDelta is none": (2, 0.1, [0.5, 0.55, 0.59], True),
    "small gains add up to one that counts": (2, 0.1, [0.5, 0.59, 0.68], False),
}


@pytest.mark.parametrize(("patience", "min_delta", "values", "want"), PATIENCE.values(), ids=PATIENCE.keys())
def test_patience_counts_evaluations_without_gain(
    tmp_path: Path, patience: int | None, min_delta: float, values: list[float], want: bool
) -> None:
    best = build_best(tmp_path, patience=patience, min_delta=min_delta)
    for step, value in enumerate(values):
        best.record(torch.nn.Linear(1, 1), value, step, True)

    assert best.is_exhausted is want


def test_a_signal_is_noticed_at_the_next_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "_received", [15])

    with pytest.raises(Interrupted, match="SIGTERM interrupted training at step 3"):
        signals.check("training at step 3")


def explode(trainer: Any, losses: list[float]) -> None:
    for step, value in enumerate(losses, start=1):
        trainer._check_explosion(step, value, 1.0)


EXPLOSIONS = {
    "a loss that falls": ([5.0, 4.0, 3.0, 2.0, 1.0, 0.5], False),
    "one bad batch": ([5.0, 4.0, 60.0, 3.0, 2.0, 1.0], False),
    "a model that guesses at random again": ([2.0] + [10.8] * 20, False),
    "a loss that stays high": ([1.0, 1.0, 9.0, 9.0, 9.0, 20.0], True),
}


@pytest.mark.parametrize(("losses", "want"), EXPLOSIONS.values(), ids=EXPLOSIONS.keys())
def test_an_exploding_loss_ends_the_run(losses: list[float], want: bool) -> None:
    trainer = loop.FineTuneTrainer.__new__(loop.FineTuneTrainer)
    trainer._first_loss, trainer._recent = None, deque(maxlen=5)
    if not want:
        explode(trainer, losses)
        return
    with pytest.raises(Diverged, match=r"the loss must not explode; its mean over the 5 steps up to 6 is 9\.6"):
        explode(trainer, losses)


def test_a_gradient_that_is_not_finite_ends_the_run() -> None:
    trainer = loop.FineTuneTrainer.__new__(loop.FineTuneTrainer)

    with pytest.raises(Diverged, match="the gradient must be finite; step 4 gave inf"):
        trainer._check_explosion(4, 1.0, float("inf"))

"""Losses and metrics: sums over targets, figures of the whole split, and no good-looking number from a broken model."""

import math
from pathlib import Path
from typing import Any

import one_step
import pytest
import tiny_models
import torch
import training_runs
import transformers
from sklearn import metrics as reference

from finetune_api.errors import Diverged
from finetune_api.tasks import TASKS
from finetune_trainer.batches import dataset
from finetune_trainer.evaluation import metrics
from finetune_trainer.losses import per_token as loss
from finetune_trainer.losses.parts import LossParts


def test_only_targets_count_in_the_loss_of_tokens() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 5, 7), torch.randint(0, 7, (2, 5))
    labels[0, :3] = -100
    labels[1, 4] = -100

    parts = loss.compute_token_loss(logits, labels)

    # The first token of a row is never a target: nothing comes before it.
    want = sum(
        -torch.log_softmax(logits[row, position - 1], -1)[labels[row, position]]
        for row in range(2)
        for position in range(1, 5)
        if labels[row, position] != -100
    )
    assert parts.num_targets == 5
    assert float(parts.total) == pytest.approx(float(want), abs=1e-5)


def test_a_batch_without_targets_costs_nothing_and_keeps_its_gradient() -> None:
    logits = torch.randn(1, 3, 5, requires_grad=True)

    parts = loss.compute_token_loss(logits, torch.full((1, 3), -100))
    parts.total.backward()

    assert float(parts.total.detach()) == 0.0
    assert logits.grad is not None
    assert float(logits.grad.abs().sum()) == 0.0


def gather(kind: Any, batches: list[tuple[list[int], list[int], float]]) -> Any:
    for predictions, targets, total in batches:
        predicted, wanted = torch.tensor(predictions), torch.tensor(targets)
        parts = LossParts(torch.tensor(total), len(targets), (predicted == wanted).sum(), predicted, wanted)
        kind.update(parts)
    return kind


def test_metrics_of_tokens_weigh_every_token_alike() -> None:
    found = gather(metrics.TokenScores(), [([1, 2, 3], [1, 2, 9], 6.0), ([4], [4], 2.0)]).compute()

    assert found == {"loss": 2.0, "perplexity": pytest.approx(math.e**2), "token_accuracy": 0.75}


def test_metrics_of_rows_are_those_of_scikit_learn() -> None:
    targets, predictions = [0, 0, 1, 2, 2, 2], [0, 1, 1, 2, 0, 2]

    kind = gather(metrics.RowScores(3), [(predictions[:4], targets[:4], 3.0), (predictions[4:], targets[4:], 1.5)])

    assert kind.compute() == {
        "accuracy": pytest.approx(4 / 6),
        "f1_macro": pytest.approx(reference.f1_score(targets, predictions, average="macro")),
        "f1_weighted": pytest.approx(reference.f1_score(targets, predictions, average="weighted")),
        "precision_macro": pytest.approx(reference.precision_score(targets, predictions, average="macro")),
        "precision_weighted": pytest.approx(reference.precision_score(targets, predictions, average="weighted")),
        "recall_macro": pytest.approx(reference.recall_score(targets, predictions, average="macro")),
        "recall_weighted": pytest.approx(4 / 6),
        "loss": 0.75,
    }
    assert kind.compute_confusion() == [[1, 1, 0], [0, 1, 0], [1, 0, 2]]


def test_labels_that_no_row_has_and_none_is_given_do_not_count() -> None:
    found = gather(metrics.RowScores(3), [([0, 0, 2], [0, 0, 2], 1.0)]).compute()

    assert {found[name] for name in ("accuracy", "f1_macro", "precision_macro", "recall_macro")} == {1.0}


@pytest.mark.parametrize("task", list(TASKS))
def test_every_metric_of_the_contract_is_measured(task: Any) -> None:
    kind: Any = metrics.RowScores(2) if task == "SequenceClassification" else metrics.TokenScores()

    assert set(gather(kind, [([0, 1], [0, 0], 1.0)]).compute()) == set(TASKS[task].metrics)


def test_scores_of_two_ranks_merge_to_those_of_one() -> None:
    batches = [([0, 1, 1], [0, 0, 1], 2.0), ([1, 1], [1, 0], 1.0)]
    for build in (lambda: metrics.RowScores(2), metrics.TokenScores):
        whole = gather(build(), batches)
        merged = gather(build(), batches[:1])
        merged.merge(gather(build(), batches[1:]))
        assert merged.compute() == whole.compute()


@pytest.mark.parametrize("is_packed", [True, False])
def test_a_loss_that_is_not_finite_is_never_averaged_away(tmp_path: Path, is_packed: bool) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_models.build_decoder(tmp_path / "model"))
    model.lm_head.weight.data[7, 7] = math.nan
    path = tmp_path / "rows.parquet"
    path.write_bytes(training_runs.build_parquet("CausalLM", 4, seed=3))
    dataset.unpack_rows(path)
    evaluator = one_step.build_evaluator(is_packed=is_packed)

    with (
        one_step.packing(model, is_packed),
        pytest.raises(Diverged, match="the loss must be a finite number; evaluation at step 20 gave nan"),
    ):
        evaluator.evaluate(model, dataset.load_rows(path), "evaluation at step 20")


@pytest.mark.parametrize("tokens", [1, 40, 10_000])
def test_packed_and_padded_evaluations_give_the_same_figures(tmp_path: Path, tokens: int) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_models.build_decoder(tmp_path / "model"))
    path = tmp_path / "rows.parquet"
    path.write_bytes(training_runs.build_parquet("InstructionTuning", 9, seed=3))
    dataset.unpack_rows(path)

    def measure(tokens: int, *, is_packed: bool) -> dict[str, float]:
        evaluator = one_step.build_evaluator(tokens, is_packed=is_packed)
        with one_step.packing(model, is_packed):
            return evaluator.evaluate(model, dataset.load_rows(path), "a test").compute()

    assert measure(tokens, is_packed=True) == pytest.approx(measure(10_000, is_packed=False), rel=1e-5)

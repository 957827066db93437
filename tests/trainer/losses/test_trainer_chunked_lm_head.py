"""Cross-entropy without logits: the numbers torch gives with them."""

from typing import Any

import pytest
import torch
from torch.nn import functional

from finetune_trainer.losses import chunked_lm_head

TARGETS, HIDDEN, VOCABULARY = 37, 16, 101

CASES: dict[str, dict[str, Any]] = {
    "one chunk": {"chunk": 64},
    "several chunks, the last one short": {"chunk": 8},
    "one target a chunk": {"chunk": 1},
    "label smoothing": {"chunk": 8, "label_smoothing": 0.1},
    "weights of targets": {"chunk": 8, "is_weighted": True},
    "label smoothing and weights": {"chunk": 8, "label_smoothing": 0.3, "is_weighted": True},
    "chunks by themselves": {},
}


def make_inputs(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    # Large logits, as a trained model has: a sum of their exponentials would overflow.
    states = (20 * torch.randn(TARGETS, HIDDEN, generator=generator)).to(dtype).requires_grad_()
    head = torch.randn(VOCABULARY, HIDDEN, generator=generator).to(dtype).requires_grad_()
    targets = torch.randint(0, VOCABULARY, (TARGETS,), generator=generator)
    return states, head, targets, torch.rand(TARGETS, generator=generator)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("is_trained", [True, False], ids=["trained head", "frozen head"])
def test_loss_and_gradients_are_those_of_whole_logits(name: str, is_trained: bool) -> None:
    case = dict(CASES[name])
    is_weighted, smoothing = case.pop("is_weighted", False), case.get("label_smoothing", 0.0)
    states, head, targets, weights = make_inputs()
    head.requires_grad_(is_trained)
    logits = states @ head.T
    losses = functional.cross_entropy(logits, targets, reduction="none", label_smoothing=smoothing)
    want = (losses * weights if is_weighted else losses).sum()
    (3 * want).backward()
    wanted = [item.grad for item in (states, head)]
    states.grad = head.grad = None

    found = chunked_lm_head.compute_head_loss(
        states, head, targets, target_weights=weights if is_weighted else None, **case
    )
    (3 * found.total).backward()

    assert float(found.total.detach()) == pytest.approx(float(want.detach()), rel=1e-5)
    assert int(found.num_correct) == int((logits.argmax(-1) == targets).sum())
    for gradient, reference in zip((states.grad, head.grad), wanted, strict=True):
        assert (gradient is None) == (reference is None)
        if gradient is not None and reference is not None:
            assert float((gradient - reference).abs().max() / reference.abs().max()) < 1e-5


def test_without_gradients_the_loss_is_the_same() -> None:
    states, head, targets, _ = make_inputs()
    want = chunked_lm_head.compute_head_loss(states, head, targets, chunk=8)

    with torch.no_grad():
        found = chunked_lm_head.compute_head_loss(states, head, targets, chunk=8)

    assert (float(found.total), int(found.num_correct)) == (float(want.total.detach()), int(want.num_correct))
    assert not found.total.requires_grad


def test_no_targets_cost_nothing_and_keep_their_gradient() -> None:
    states, head, targets, _ = make_inputs()

    found = chunked_lm_head.compute_head_loss(states[:0], head, targets[:0])
    found.total.backward()

    assert float(found.total.detach()) == 0.0
    assert head.grad is not None
    assert float(head.grad.abs().sum()) == 0.0


def test_products_in_bfloat16_stay_near_and_gradients_keep_the_weights_type() -> None:
    states, head, targets, _ = make_inputs()
    want = chunked_lm_head.compute_head_loss(states, head, targets, chunk=8)

    found = chunked_lm_head.compute_head_loss(states, head, targets, dtype=torch.bfloat16, chunk=8)
    found.total.backward()

    assert float(found.total.detach()) == pytest.approx(float(want.total.detach()), rel=2e-2)
    assert head.grad is not None
    assert states.grad is not None
    assert (head.grad.dtype, states.grad.dtype) == (torch.float32, torch.float32)

"""Small models of each packed architecture, and what one and the same rows give them singly and packed."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import transformers

from finetune_trainer.batches import collate
from finetune_trainer.losses import per_row as row_loss
from finetune_trainer.losses import per_token as token_loss
from finetune_trainer.losses.parts import LossParts
from finetune_trainer.tasks import TaskHead
from finetune_trainer.tasks.next_tokens_train import NextTokensHead
from finetune_trainer.tasks.sequence_classification.train import SequenceClassificationHead

LENGTHS = (5, 17, 1, 9, 30)
VOCABULARY = 120
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}


def build(kind: str, **sizes: Any) -> Any:
    """Build a small model of random weights, without dropout: its noise would differ from row to row."""
    torch.manual_seed(3)
    config = transformers.AutoConfig.for_model(kind, **{**SIZES, **sizes})
    if kind == "bert":
        config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
        config.num_labels = 3
        return transformers.AutoModelForSequenceClassification.from_config(config, attn_implementation="sdpa").train()
    config.use_cache = False
    return transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").train()


MODELS: dict[str, Callable[[], Any]] = {
    "llama": lambda: build("llama", num_key_value_heads=2),
    "mistral, a window smaller than the longest row": lambda: build("mistral", num_key_value_heads=2, sliding_window=8),
    "mistral, a window larger than every row": lambda: build("mistral", num_key_value_heads=2, sliding_window=64),
    "qwen2": lambda: build("qwen2", num_key_value_heads=2, tie_word_embeddings=True),
    "qwen3": lambda: build("qwen3", num_key_value_heads=2, head_dim=16),
    "gemma": lambda: build("gemma", num_key_value_heads=1, head_dim=16),
    "gpt2": lambda: build(
        "gpt2", n_embd=32, n_layer=2, n_head=4, n_positions=64, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0
    ),
    "bert": lambda: build("bert"),
}


def find_head(name: str) -> TaskHead:
    """Return the head of the task that a model of `MODELS` is for."""
    return SequenceClassificationHead(["a", "b", "c"]) if name == "bert" else NextTokensHead()


def make_rows() -> list[dict[str, Any]]:
    """Make rows with what each task learns of them."""
    generator = np.random.default_rng(5)
    rows: list[dict[str, Any]] = []
    for number, length in enumerate(LENGTHS):
        ids = generator.integers(0, VOCABULARY, length)
        labels = np.where(generator.random(length) < 0.7, ids, -100)
        rows.append({"input_ids": ids, "label": number % 3, "labels": labels})
    return rows


Figures = tuple[float, int, dict[str, torch.Tensor]]
"""Sum of the losses, number of right answers, gradient of every parameter."""


def compute(model: Any, batches: list[collate.Batch], run: Callable[[Any, collate.Batch], LossParts]) -> Figures:
    model.zero_grad()
    total, num_correct = 0.0, 0
    for batch in batches:
        parts = run(model, _move(batch, model))
        parts.total.backward()
        total, num_correct = total + float(parts.total.detach()), num_correct + int(parts.num_correct)
    gradients = {name: item.grad.clone() for name, item in model.named_parameters() if item.grad is not None}
    return total, num_correct, gradients


def compute_singly(model: Any, rows: list[dict[str, Any]], head: TaskHead) -> Figures:
    """Give the model one row at a time as anybody would, and take the loss from its whole logits."""

    def run(model: Any, batch: collate.Batch) -> LossParts:
        logits = model(batch["input_ids"]).logits
        is_language = isinstance(head, NextTokensHead)
        return (token_loss.compute_token_loss if is_language else row_loss.compute_row_loss)(logits, batch["labels"])

    return compute(model, [head.collate([row], collate.Padding(0), is_packed=False) for row in rows], run)


def compute_packed(model: Any, rows: list[dict[str, Any]], head: TaskHead) -> Figures:
    """Give the model all rows packed into one, as the task's head does."""
    with head.packing(model):
        return compute(
            model,
            [head.collate(rows, collate.Padding(0), is_packed=True)],
            lambda model, batch: head.compute_loss(model, batch, is_autocast=False),
        )


def measure_error(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> float:
    """Return the largest difference, relative to the largest number of the gradient it lies in."""
    assert left.keys() == right.keys()
    return max(float((left[name] - right[name]).abs().max() / right[name].abs().max().clamp_min(1e-6)) for name in left)


def compute_other_rows(model: Any, head: TaskHead) -> tuple[torch.Tensor, torch.Tensor, bool]:
    """Pack the rows twice, the second time with another first row.

    Returns:
        What the model says of all rows but the first, both times; and whether it says something else of the first.
    """
    rows = make_rows()
    changed = [{**rows[0], "input_ids": (rows[0]["input_ids"] + 1) % VOCABULARY}, *rows[1:]]
    before, after = (_compute_logits(model, given, head) for given in (rows, changed))
    border = LENGTHS[0] if isinstance(head, NextTokensHead) else 1
    return before[border:], after[border:], not torch.equal(before[:border], after[:border])


def _compute_logits(model: Any, rows: list[dict[str, Any]], head: TaskHead) -> torch.Tensor:
    batch = _move(head.collate(rows, collate.Padding(0), is_packed=True), model)
    batch.pop("labels")
    with head.packing(model), torch.no_grad():
        logits: torch.Tensor = model(**batch).logits
    return logits.reshape(-1, logits.shape[-1])


def _move(batch: collate.Batch, model: Any) -> collate.Batch:
    device = next(model.parameters()).device
    return {name: item.to(device) if isinstance(item, torch.Tensor) else item for name, item in batch.items()}

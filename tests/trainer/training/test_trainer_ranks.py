"""What several ranks need before their first step."""

from typing import Any

import numpy as np
import torch
import transformers

from finetune_trainer.batches.collate import Padding
from finetune_trainer.tasks.sequence_classification.train import SequenceClassificationHead
from finetune_trainer.training import ranks

HEAD = SequenceClassificationHead(["a", "b"])


def build_batch() -> Any:
    row = {"input_ids": np.array([5, 6, 7]), "label": 1}
    return HEAD.collate([row], Padding(0), is_packed=False)


def test_weights_that_no_row_goes_through_are_frozen() -> None:
    config = transformers.XLNetConfig(vocab_size=40, d_model=32, n_layer=1, n_head=4, d_inner=64)
    model = transformers.XLNetForSequenceClassification(config).train()

    unused = ranks.freeze_unused(model, HEAD, build_batch(), is_autocast=False)

    # What XLNet has for masked words and for pairs of texts.
    assert "transformer.mask_emb" in unused
    assert {name for name, item in model.named_parameters() if not item.requires_grad} == set(unused)
    assert model.training
    assert all(item.grad is None for item in model.parameters())
    HEAD.compute_loss(model, build_batch(), is_autocast=False).total.backward()
    assert [name for name, item in model.named_parameters() if item.requires_grad and item.grad is None] == []


def test_of_a_model_that_uses_all_its_weights_none_is_frozen() -> None:
    config = transformers.BertConfig(
        vocab_size=40, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=64
    )
    model = transformers.BertForSequenceClassification(config)
    assert ranks.freeze_unused(model, HEAD, build_batch(), is_autocast=False) == []
    assert torch.distributed.is_initialized() is False
    assert ranks.count_ranks() == 1

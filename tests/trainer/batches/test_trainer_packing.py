"""Packed rows: the same loss and gradients as one row at a time, and no token that sees another row's."""

from typing import Any

import pytest
import torch
from packed_models import (
    MODELS,
    compute_other_rows,
    compute_packed,
    compute_singly,
    find_head,
    make_rows,
    measure_error,
)
from torch import nn

from finetune_trainer.batches import packed_attention
from finetune_trainer.batches.collate import Padding
from finetune_trainer.model import architectures


@pytest.mark.parametrize("name", MODELS)
def test_a_packed_row_gives_the_loss_and_gradients_of_its_rows_one_by_one(name: str) -> None:
    model, head = MODELS[name](), find_head(name)
    rows = make_rows()

    singly = compute_singly(model, rows, head)
    packed = compute_packed(model, rows, head)

    assert packed[0] == pytest.approx(singly[0], rel=1e-5)
    assert packed[1] == singly[1]
    assert measure_error(packed[2], singly[2]) < 1e-5


@pytest.mark.parametrize("name", MODELS)
def test_no_token_of_a_packed_row_sees_another_row(name: str) -> None:
    before, after, is_first_changed = compute_other_rows(MODELS[name]().eval(), find_head(name))

    assert torch.equal(before, after)
    assert is_first_changed


def test_every_architecture_that_is_packed_has_been_compared() -> None:
    assert {name.split(",")[0] for name in MODELS} == architectures.PACKED_DECODERS | set(architectures.PACKED_ENCODERS)


def test_a_model_is_left_as_it_was() -> None:
    model = MODELS["bert"]()
    with packed_attention.packed(model, reads_first_tokens=True):
        assert model.config._attn_implementation == packed_attention.PACKED
    batch = find_head("bert").collate(make_rows(), Padding(0), is_packed=False)
    labels = batch.pop("labels")

    assert model.config._attn_implementation == "sdpa"
    assert model(**batch).logits.shape == (len(labels), 3)


def attend(**changes: Any) -> Any:
    module = nn.Module()
    heads = torch.zeros(1, 2, 6, 4)
    arguments: dict[str, Any] = {
        "query": heads,
        "key": heads,
        "value": heads,
        "attention_mask": None,
        "cu_seq_lens_q": torch.tensor([0, 2, 6], dtype=torch.int32),
        "max_length_q": 4,
    }
    return packed_attention.attend_packed(module, **{**arguments, **changes})


REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "capped scores": ({"softcap": 50.0}, NotImplementedError, "Module asks packed attention for softcap"),
    "attention sinks": ({"s_aux": torch.zeros(2)}, NotImplementedError, "s_aux"),
    "a mask": ({"attention_mask": torch.ones(1, 6)}, ValueError, "no mask"),
    "no borders": ({"cu_seq_lens_q": None}, ValueError, "its borders"),
    "several rows": ({"query": torch.zeros(2, 2, 6, 4)}, ValueError, "one packed row"),
}


@pytest.mark.parametrize(("changes", "want", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_packed_attention_does_not_compute_is_refused(
    changes: dict[str, Any], want: type[Exception], message: str
) -> None:
    assert attend()[0].shape == (1, 6, 2, 4)
    with pytest.raises(want, match=message):
        attend(**changes)

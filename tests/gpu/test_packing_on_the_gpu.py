"""Packed rows on a GPU, where torch's variable-length kernel keeps them apart."""

from typing import Any

import pytest
import torch
from packed_models import LENGTHS, MODELS, VOCABULARY, compute_packed, compute_singly, make_rows, measure_error

from finetune_trainer import attention, collate

pytestmark = pytest.mark.gpu

DEVICE = torch.device("cuda")


def run(model: Any, rows: list[dict[str, Any]], *, is_labelled: bool) -> torch.Tensor:
    batch = collate.collate_packed(rows)
    batch.pop("labels")
    on_gpu = {name: value.to(DEVICE) if isinstance(value, torch.Tensor) else value for name, value in batch.items()}
    with attention.packed(model, is_labelled=is_labelled), torch.no_grad():
        logits: torch.Tensor = model(**on_gpu).logits
    return logits.reshape(-1, logits.shape[-1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", MODELS)
def test_no_token_of_a_packed_row_sees_another_row(name: str, dtype: torch.dtype) -> None:
    model, is_labelled = MODELS[name]().to(DEVICE, dtype).eval(), name == "bert"
    rows = make_rows(is_labelled=is_labelled)
    changed = [{**rows[0], "input_ids": (rows[0]["input_ids"] + 1) % VOCABULARY}, *rows[1:]]

    before, after = run(model, rows, is_labelled=is_labelled), run(model, changed, is_labelled=is_labelled)

    border = 1 if is_labelled else LENGTHS[0]
    assert torch.equal(before[border:], after[border:])
    assert not torch.equal(before[:border], after[:border])


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-3), (torch.bfloat16, 0.1)])
@pytest.mark.parametrize("name", MODELS)
def test_a_packed_row_gives_the_loss_and_gradients_of_its_rows_one_by_one(
    name: str, dtype: torch.dtype, limit: float
) -> None:
    model, is_labelled = MODELS[name]().to(DEVICE, dtype), name == "bert"
    rows = make_rows(is_labelled=is_labelled)

    singly = compute_singly(model, rows, is_labelled=is_labelled)
    packed = compute_packed(model, rows, is_labelled=is_labelled)

    assert packed[0] == pytest.approx(singly[0], rel=limit)
    assert measure_error(packed[2], singly[2]) < limit

"""Packed rows on a GPU, where torch's variable-length kernel keeps them apart."""

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

pytestmark = pytest.mark.gpu

DEVICE = torch.device("cuda")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", MODELS)
def test_no_token_of_a_packed_row_sees_another_row(name: str, dtype: torch.dtype) -> None:
    model = MODELS[name]().to(DEVICE, dtype).eval()

    before, after, is_first_changed = compute_other_rows(model, find_head(name))

    assert torch.equal(before, after)
    assert is_first_changed


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-3), (torch.bfloat16, 0.1)])
@pytest.mark.parametrize("name", MODELS)
def test_a_packed_row_gives_the_loss_and_gradients_of_its_rows_one_by_one(
    name: str, dtype: torch.dtype, limit: float
) -> None:
    model, head = MODELS[name]().to(DEVICE, dtype), find_head(name)
    rows = make_rows()

    singly = compute_singly(model, rows, head)
    packed = compute_packed(model, rows, head)

    assert packed[0] == pytest.approx(singly[0], rel=limit)
    assert measure_error(packed[2], singly[2]) < limit

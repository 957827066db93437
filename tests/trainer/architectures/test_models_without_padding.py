"""Models whose configuration knows no padding token: they are trained, and what is published names one."""

import json
from pathlib import Path

import architecture_cells
import pytest
from architecture_cells import Bench, Cell, Outcome


@pytest.mark.parametrize("model_type", ["codegen", "rwkv"])
def test_a_model_without_padding_is_trained_and_published_with_it(
    cells: Bench, tmp_path: Path, model_type: str
) -> None:
    cell = Cell(model_type, "language", "Full")
    base = json.loads((cells.get_model(model_type) / "config.json").read_text())
    assert base.get("pad_token_id") is None

    assert architecture_cells.run_cell(cells, cell, tmp_path) == Outcome("trained")

    [folder] = (cells.root / "runs" / model_type).rglob("model")
    assert json.loads((folder / "config.json").read_text())["pad_token_id"] is not None
    assert json.loads((folder / "tokenizer_config.json").read_text())["pad_token"]

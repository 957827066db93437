"""Every architecture, purpose and method: trained and published as its report says, or refused before a GPU is held."""

from pathlib import Path

import architecture_cells
import architecture_table
import pytest
from architecture_cells import Bench, Cell

TABLE = architecture_table.load_table()


# Of a model type one process builds the model.
CELLS = [pytest.param(cell, id=str(cell), marks=pytest.mark.xdist_group(cell.model_type)) for cell in TABLE.endings]
SAMPLE = [pytest.param(cell, id=str(cell)) for cell in architecture_table.choose_sample(TABLE)]


@pytest.mark.architectures
@pytest.mark.parametrize("cell", CELLS)
def test_a_cell_ends_as_the_table_says(cells: Bench, tmp_path: Path, cell: Cell) -> None:
    outcome = architecture_cells.run_cell(cells, cell, tmp_path)
    architecture_table.check_ending(TABLE, cell, outcome)


@pytest.mark.parametrize("cell", SAMPLE)
def test_a_sample_of_the_cells_ends_as_the_table_says(cells: Bench, tmp_path: Path, cell: Cell) -> None:
    outcome = architecture_cells.run_cell(cells, cell, tmp_path)
    architecture_table.check_ending(TABLE, cell, outcome)

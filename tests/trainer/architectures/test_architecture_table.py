"""The table of the sweep names every text model of transformers, and its sample stands for all of it."""

import architecture_table
import tiny_architectures
from architecture_cells import METHODS, PURPOSES
from architecture_table import TRAINED

TABLE = architecture_table.load_table()


def test_every_type_that_transformers_lists_is_in_the_table_or_left_out_with_a_reason() -> None:
    named = {cell.model_type for cell in TABLE.endings} - set(tiny_architectures.VARIANTS)
    assert sorted([*named, *TABLE.left_out]) == tiny_architectures.list_types()
    assert all(len(reason) > 10 for reason in TABLE.left_out.values())


def test_every_refusal_of_the_table_stands_for_a_cell() -> None:
    assert set(TABLE.refusals) == set(TABLE.endings.values()) - {TRAINED}


def test_the_sample_has_every_method_for_every_purpose_every_kind_of_tokenizer_and_every_refusal() -> None:
    sample = architecture_table.choose_sample(TABLE)
    trained = [cell for cell in sample if TABLE.endings[cell] == TRAINED]
    kinds = {tiny_architectures.choose_tokenizer(cell.model_type) for cell in TABLE.endings}
    assert {(cell.purpose, cell.method) for cell in trained} == {(p, m) for p in PURPOSES for m in METHODS}
    assert {tiny_architectures.choose_tokenizer(cell.model_type) for cell in trained} == kinds
    assert {TABLE.endings[cell] for cell in sample} == {TRAINED, *TABLE.refusals}
    assert len(sample) <= 40

"""What is remembered of rows: which repeat which, their labels, and where they stand."""

import numpy
import pytest
from sample_rows import make_facts, make_samples

from finetune_trainer.data import fingerprints
from finetune_trainer.data.fingerprints import Ledger
from finetune_trainer.data.samples import Part, Sample


def rows(*indices: int) -> fingerprints.Indices:
    return numpy.array(indices, numpy.int64)


def test_groups_are_numbered_as_they_first_appear() -> None:
    facts = make_facts(make_samples(["b", "a", "B ", "c", " a", "b"]))
    assert facts.near.tolist() == [0, 1, 0, 2, 1, 0]
    assert facts.exact.tolist() == [0, 1, 2, 3, 4, 0]


def test_of_many_rows_the_groups_are_those_of_their_texts() -> None:
    texts = [f"text {n * 7919 % 1000}" for n in range(3000)]
    first = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    assert make_facts(make_samples(texts)).near.tolist() == [first[text] for text in texts]


DIFFERENT = [
    pytest.param(("text", "a b"), ("text", "ab"), id="a blank that parts words"),
    pytest.param(("text", "ab", "c"), ("text", "a", "bc"), id="another place of the cut"),
    pytest.param(("text", "ab", ""), ("text", "", "ab"), id="another side"),
]


@pytest.mark.parametrize(("left", "right"), DIFFERENT)
def test_texts_that_differ_in_more_than_blanks_and_case_are_not_alike(
    left: tuple[str, ...], right: tuple[str, ...]
) -> None:
    samples = [Sample(0, "t line 1", tuple(Part(role, text) for text in texts)) for role, *texts in (left, right)]
    facts = make_facts(samples)
    assert (len(set(facts.near.tolist())), len(set(facts.exact.tolist()))) == (2, 2)


def test_texts_are_alike_in_any_script_but_exactly_equal_only_with_their_roles() -> None:
    samples = [
        Sample(0, "t line 1", (Part("user", "STRASSE\u2003\u00c9t\u00e9\n"),)),
        Sample(1, "t line 2", (Part("user", "stra\u00dfe \u00e9T\u00c9"),)),
        Sample(2, "t line 3", (Part("assistant", "stra\u00dfe \u00e9T\u00c9"),)),
    ]
    facts = make_facts(samples)
    assert (facts.near.tolist(), facts.exact.tolist()) == ([0, 0, 0], [0, 1, 2])


def test_repeated_rows_are_counted_within_the_rows_asked_for() -> None:
    facts = make_facts(make_samples(["a", "a", "A", "b", "a"]))
    assert facts.count_repeated(rows(0, 1, 2, 3, 4)) == (2, 3)
    assert facts.count_repeated(rows(1, 3)) == (0, 0)
    assert facts.count_repeated(rows()) == (0, 0)


def test_a_conflict_is_another_label_than_the_same_text_had_first() -> None:
    facts = make_facts(make_samples(["a", "b", "A", "a ", "b"], ["x", "y", "y", "x", "y"]))
    assert facts.find_conflicts(rows(0, 1, 2, 3, 4)).tolist() == [2]
    assert facts.find_conflicts(rows(2, 3, 4)).tolist() == [3]
    assert facts.find_conflicts(rows()).tolist() == []


def test_shared_rows_are_those_whose_text_stands_among_the_others() -> None:
    facts = make_facts(make_samples(["a", "b", "c", " B", "d"]))
    assert facts.find_shared(rows(3, 4), rows(0, 1, 2)).tolist() == [3]


def test_labels_are_counted_by_name() -> None:
    facts = make_facts(make_samples(["a", "b", "c"], ["y", "x", "y"]))
    assert facts.count_labels(rows(0, 1, 2)) == {"x": 1, "y": 2}
    assert facts.count_labels(rows(0)) == {"y": 1}
    assert make_facts(make_samples(["a"])).count_labels(rows(0)) == {}


def test_of_labels_without_end_only_the_number_is_kept() -> None:
    book = Ledger()
    names = [f"label {n % 1500}" for n in range(3000)]
    for sample in make_samples(names, names):
        book.add(sample)
    assert (len(book.label_names), book.count_labels()) == (1000, 1500)


def test_a_place_is_found_again_in_any_file() -> None:
    places = ["a.jsonl line 2", "a.jsonl line 9", "b c.parquet row 1", "a.jsonl line 1"]
    facts = make_facts([Sample(0, place, (Part("text", "x"),)) for place in places])
    assert [facts.find_place(row) for row in range(4)] == places


def test_a_row_costs_about_fifty_bytes_whatever_it_holds() -> None:
    facts = make_facts(make_samples([f"text {n}" * 1000 for n in range(100)], ["label"] * 100))
    kept = facts.exact.nbytes + facts.near.nbytes + facts.labels.nbytes + facts.numbers.itemsize * len(facts.numbers)
    assert kept + 2 * 100 * fingerprints.DIGEST_BYTES == 100 * 52

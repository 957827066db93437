"""The split: which rows are held out, repeatable, by label, and with equal texts on one side."""

# ruff: noqa: E501 - a case per line keeps the tables readable

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy
import pytest
from sample_rows import make_facts, make_samples

from finetune_api.errors import DataError
from finetune_trainer.data import holdout


def hold_out(
    texts: Sequence[str], shares: Mapping[str, float], labels: Sequence[str] | None = None, seed: int = 13
) -> dict[str, list[int]]:
    """Split rows, by label where there are labels."""
    facts = make_facts(make_samples(texts, labels))
    found = holdout.split_rows(facts.near, facts.labels if labels else None, shares, seed=seed)
    return {name: numpy.flatnonzero(found == number).tolist() for number, name in enumerate(["train", *shares])}


def test_a_split_is_repeatable_stratified_and_complete() -> None:
    texts, labels = [f"text {n}" for n in range(200)], ["a"] * 150 + ["b"] * 50
    shares = {"validation": 0.1, "test": 0.2}
    splits = hold_out(texts, shares, labels)
    counts = {name: Counter(labels[row] for row in rows) for name, rows in splits.items()}
    assert counts == {"train": {"a": 105, "b": 35}, "validation": {"a": 15, "b": 5}, "test": {"a": 30, "b": 10}}
    assert sorted(row for rows in splits.values() for row in rows) == list(range(200))
    assert splits == hold_out(texts, shares, labels)
    assert splits != hold_out(texts, shares, labels, seed=14)


@pytest.mark.parametrize(
    ("is_stratified", "want"),
    [
        (True, {"validation": [6, 13, 14, 27, 28, 29], "test": [1, 21, 26]}),
        (False, {"validation": [12, 15, 17, 20, 21, 27], "test": [2, 7, 16]}),
    ],
    ids=["by label", "all as one"],
)
def test_the_rows_held_out_are_the_same_in_every_version(*, is_stratified: bool, want: dict[str, list[int]]) -> None:
    texts = [f"text {n - n % 5 // 4}" for n in range(30)]
    labels = ["ab"[n % 3 == 0] for n in range(30)] if is_stratified else None
    splits = hold_out(texts, {"validation": 0.2, "test": 0.1}, labels)
    assert {name: splits[name] for name in want} == want


def test_many_small_classes_still_give_the_whole_share() -> None:
    splits = hold_out([str(n) for n in range(90)], {"test": 0.1}, [f"class {n // 3}" for n in range(90)], seed=0)
    assert len(splits["test"]) == 9


def test_equal_texts_stay_on_one_side_whatever_their_label_blanks_and_case() -> None:
    texts = [f"Text  {n // 4}" if n % 2 else f"text {n // 4} " for n in range(400)]
    splits = hold_out(texts, {"validation": 0.25}, [("a", "b")[n % 2] for n in range(400)], seed=1)
    sides = [{row // 4 for row in rows} for rows in splits.values()]
    assert not sides[0] & sides[1]
    assert len(splits["validation"]) == 100


@pytest.mark.parametrize(
    ("texts", "share", "want"),
    [
        (["a", "b", "c", "d"], 0.01, "spec.split.validation (0.01) must leave a row in every part; of 4 rows, 4 of them different, validation would get 0 rows"),
        (["a"] * 50, 0.1, "spec.split.validation (0.1) must leave a row in every part; of 50 rows, 1 of them different, validation would get 0 rows"),
        (["a", "b"], 0.9, "spec.split.validation (0.9) must leave a row in every part; of 2 rows, 2 of them different, train would get 0 rows"),
    ],
    ids=["too small a share", "all rows alike", "too large a share"],
)  # fmt: skip
def test_a_split_that_leaves_no_row_is_refused_with_its_numbers(texts: list[str], share: float, want: str) -> None:
    with pytest.raises(DataError) as caught:
        hold_out(texts, {"validation": share}, seed=0)
    assert caught.value.message == want

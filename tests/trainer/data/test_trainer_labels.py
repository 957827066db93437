"""Labels: read from values of every kind, in an order that stays, and compared with those of the training rows."""

import pytest

from finetune_api.errors import DataError
from finetune_trainer.data import labels
from finetune_trainer.data.findings import Findings
from finetune_trainer.data.readers import Record
from finetune_trainer.data.samples import Part, Sample


@pytest.mark.parametrize(
    ("value", "want"),
    [("pos", "pos"), (" pos ", "pos"), (3, "3"), (0, "0"), (True, None), (1.0, None), ("", None), (None, None)],
)
def test_labels_are_texts_or_whole_numbers(value: object, want: str | None) -> None:
    findings = Findings()
    assert labels.read_label(Record("p", {"label": value}), "label", findings) == want
    assert findings.total == (want is None)


@pytest.mark.parametrize(
    ("names", "want"),
    [(["b", "a"], ["a", "b"]), (["10", "9", "-1"], ["-1", "9", "10"]), (["10", "9", "x"], ["10", "9", "x"])],
    ids=["letters", "numbers", "both"],
)
def test_label_ids_are_stable(names: list[str], want: list[str]) -> None:
    assert labels.sort_labels(names, len(names), "t") == want
    assert labels.sort_labels(names[::-1], len(names), "t") == want


def test_one_class_only_is_refused() -> None:
    with pytest.raises(DataError, match="must have at least two different labels; every row has positive"):
        labels.sort_labels(["positive"], 1, "t.jsonl")


def test_a_text_column_taken_for_labels_is_refused() -> None:
    with pytest.raises(DataError, match="must have at most 1000 different labels; it has 1001"):
        labels.sort_labels([str(number) for number in range(1000)], 1001, "t.jsonl")


def test_an_unseen_label_is_named_with_the_nearest_known_one() -> None:
    findings = Findings()
    sample = Sample(0, "t.jsonl line 1", (Part("text", "x"),), ("positiv",))
    labels.add_unknown_label(sample, "positiv", ["negative", "positive"], findings)
    assert findings.kept == [
        "t.jsonl line 1: label (positiv) must be one of the training rows' labels negative, positive;"
        " did you mean positive?"
    ]

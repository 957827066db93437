"""Labels: read from values of every kind, in an order that stays, and compared with those of the training rows."""

# ruff: noqa: E501 - a case per line keeps the tables readable

from decimal import Decimal

import pytest

from finetune_api.errors import DataError
from finetune_trainer.data import labels
from finetune_trainer.data.findings import Findings
from finetune_trainer.data.readers import Record
from finetune_trainer.data.samples import Part, Sample


@pytest.mark.parametrize(
    ("value", "want"),
    [
        *[("pos", "pos"), (" pos ", "pos"), ("True story", "True story"), ("1.0.2", "1.0.2"), ("007", "007")],
        *[
            (3, "3"),
            (0, "0"),
            ("3", "3"),
            (3.0, "3"),
            ("3.0", "3"),
            ("-0.0", "0"),
            (Decimal("3.00"), "3"),
            (1e20, "1" + "0" * 20),
        ],
        *[(True, "true"), (False, "false"), ("True", "true"), ("FALSE", "false")],
        *[
            (1.5, None),
            ("1.5", None),
            ("-.5e-3", None),
            (Decimal("0.1"), None),
            (float("nan"), None),
            (float("inf"), None),
        ],
        *[("", None), (None, None), (["pos"], None), ({"a": 1}, None), (b"pos", None), ("x" * 257, None)],
    ],
)
def test_one_rule_reads_the_labels_of_all_formats(value: object, want: str | None) -> None:
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


WARNED = [
    pytest.param({"a": 40, "b": 41}, [], id="nothing"),
    pytest.param(
        {"a": 40, "nan": 1},
        ["label nan (1 rows) looks like a missing value; it is trained as a class"],
        id="what stands for no value",
    ),
    pytest.param(
        {"Lost_Card": 3, "lost card": 5, "LOST-CARD ": 1, "b": 40},
        [
            'labels that differ only in case, blanks or the like are trained as different classes: Lost_Card (3 rows) and "lost card" (5 rows) and "LOST-CARD " (1 rows)'
        ],
        id="case and blanks",
    ),
    pytest.param(
        {"caf\u00e9": 3, "cafe\u0301": 5, "b": 40},
        [
            "labels that differ only in case, blanks or the like are trained as different classes: caf\u00e9 (3 rows) and cafe\u0301 (5 rows)"
        ],
        id="the same letters in Unicode",
    ),
    pytest.param(
        {str(n): 1 for n in range(9)} | {"a": 2},
        [
            "11 training rows have 10 different labels: spec.data[0].columns.label may name another column than that of the labels"
        ],
        id="nearly a label per row",
    ),
]


@pytest.mark.parametrize(("counts", "want"), WARNED)
def test_labels_that_are_probably_not_meant_are_said(counts: dict[str, int], want: list[str]) -> None:
    assert labels.check_labels(counts) == want

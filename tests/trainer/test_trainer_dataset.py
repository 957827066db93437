"""What the tasks share: columns, values, labels."""

# ruff: noqa: E501 - a case per line keeps the tables readable

import pytest

from finetune_api.errors import DataError
from finetune_trainer.data import samples
from finetune_trainer.data.readers import Findings, Record
from finetune_trainer.data.samples import Part, Sample
from finetune_trainer.tasks.causal_lm import rows as causal_lm
from finetune_trainer.tasks.instruction_tuning import rows as instruction_tuning
from finetune_trainer.tasks.sequence_classification import rows as sequence_classification

CLASSIFY, CAUSAL, INSTRUCT = sequence_classification.SHAPES, causal_lm.SHAPES, instruction_tuning.SHAPES


COLUMNS = [
    pytest.param(CLASSIFY, ["id", "text", "label"], {}, {"text": "text", "label": "label"}, id="by their usual names"),
    pytest.param(CLASSIFY, ["Sentence", "CLASS"], {}, {"text": "Sentence", "label": "CLASS"}, id="in any case"),
    pytest.param(CLASSIFY, ["sentence", "text", "label"], {}, {"text": "text", "label": "label"}, id="the best name"),
    pytest.param(CLASSIFY, ["premise", "hypothesis", "label"], {}, {"text": "premise", "textPair": "hypothesis", "label": "label"}, id="a pair"),
    pytest.param(CLASSIFY, ["premise", "hypothesis", "label"], {"text": "hypothesis"}, {"text": "hypothesis", "label": "label"}, id="no pair where columns are named"),
    pytest.param(CLASSIFY, ["a", "b"], {"text": "b", "label": "a"}, {"text": "b", "label": "a"}, id="as named"),
    pytest.param(CAUSAL, ["content"], {}, {"text": "content"}, id="plain text"),
    pytest.param(INSTRUCT, ["prompt", "completion"], {}, {"prompt": "prompt", "completion": "completion"}, id="prompt and completion"),
    pytest.param(INSTRUCT, ["instruction", "input", "output"], {}, {"instruction": "instruction", "input": "input", "output": "output"}, id="instruction, input, output"),
    pytest.param(INSTRUCT, ["instruction", "output"], {}, {"instruction": "instruction", "output": "output"}, id="instruction and output"),
    pytest.param(INSTRUCT, ["messages", "prompt", "completion"], {}, {"messages": "messages"}, id="messages before all"),
    pytest.param(INSTRUCT, ["q", "answer", "messages"], {"prompt": "q"}, {"prompt": "q", "completion": "answer"}, id="the shape that was named"),
]  # fmt: skip


@pytest.mark.parametrize(("shapes", "found", "chosen", "want"), COLUMNS)
def test_roles_are_found(
    shapes: tuple[samples.Shape, ...], found: list[str], chosen: dict[str, str], want: dict[str, str]
) -> None:
    assert samples.find_columns(found, chosen, shapes, "t.jsonl") == want


def test_a_missing_column_is_named_with_those_there_and_the_nearest() -> None:
    with pytest.raises(DataError) as caught:
        samples.find_columns(["idx", "sentence", "label"], {"text": "sentense"}, CLASSIFY, "train.jsonl")
    assert caught.value.message == (
        "spec.data[0].columns.text (sentense) must be a column of train.jsonl, which has idx, sentence, label;"
        " did you mean sentence?"
    )


def test_columns_that_fit_no_shape_are_listed_beside_what_is_needed() -> None:
    with pytest.raises(DataError) as caught:
        samples.find_columns(["x", "y"], {}, INSTRUCT, "t.csv")
    assert caught.value.message == (
        "t.csv must have columns for messages or prompt, completion or instruction, output; it has x, y"
    )


VALUES = [
    pytest.param({}, "text is missing; it must be a text", id="absent"),
    pytest.param({"text": None}, "text is missing; it must be a text", id="null"),
    pytest.param({"text": 7}, "text must be a text, not int", id="a number"),
    pytest.param({"text": ["x"]}, "text must be a text, not list", id="a list"),
    pytest.param({"text": " \n"}, "text must not be empty", id="blank"),
    pytest.param(
        {"text": "a\ud800"}, "text must be valid Unicode; character 2 is half of a pair", id="half a surrogate pair"
    ),
]


@pytest.mark.parametrize(("values", "want"), VALUES)
def test_a_bad_value_is_a_finding_with_its_place(values: dict[str, object], want: str) -> None:
    findings = Findings()
    assert samples.read_text(Record("t.jsonl line 3", values), "text", findings) is None
    assert findings.kept == [f"t.jsonl line 3: {want}"]


@pytest.mark.parametrize(
    ("value", "want"),
    [("pos", "pos"), (" pos ", "pos"), (3, "3"), (0, "0"), (True, None), (1.0, None), ("", None), (None, None)],
)
def test_labels_are_texts_or_whole_numbers(value: object, want: str | None) -> None:
    findings = Findings()
    assert samples.read_label(Record("p", {"label": value}), "label", findings) == want
    assert findings.total == (want is None)


# Labels.


@pytest.mark.parametrize(
    ("labels", "want"),
    [(["b", "a"], ["a", "b"]), (["10", "9", "-1"], ["-1", "9", "10"]), (["10", "9", "x"], ["10", "9", "x"])],
    ids=["letters", "numbers", "both"],
)
def test_label_ids_are_stable(labels: list[str], want: list[str]) -> None:
    assert samples.sort_labels(labels, len(labels), "t") == want
    assert samples.sort_labels(labels[::-1], len(labels), "t") == want


def test_one_class_only_is_refused() -> None:
    with pytest.raises(DataError, match="must have at least two different labels; every row has positive"):
        samples.sort_labels(["positive"], 1, "t.jsonl")


def test_a_text_column_taken_for_labels_is_refused() -> None:
    with pytest.raises(DataError, match="must have at most 1000 different labels; it has 1001"):
        samples.sort_labels([str(number) for number in range(1000)], 1001, "t.jsonl")


def test_an_unseen_label_is_named_with_the_nearest_known_one() -> None:
    findings = Findings()
    sample = Sample(0, "t.jsonl line 1", (Part("text", "x"),), "positiv")
    samples.add_unknown_label(sample, ["negative", "positive"], findings)
    assert findings.kept == [
        "t.jsonl line 1: label (positiv) must be one of the training rows' labels negative, positive;"
        " did you mean positive?"
    ]

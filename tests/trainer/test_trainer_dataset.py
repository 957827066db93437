"""What the tasks share: columns, labels, the split, and the file of tokens."""

# ruff: noqa: E501 - a case per line keeps the tables readable

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from finetune_api.errors import DataError
from finetune_trainer import dataset
from finetune_trainer.dataset import Part, Sample, TokenizedRow
from finetune_trainer.records import Findings, Record
from finetune_trainer.tasks import causal_lm, instruction_tuning, sequence_classification

CLASSIFY, CAUSAL, INSTRUCT = sequence_classification.SHAPES, causal_lm.SHAPES, instruction_tuning.SHAPES


def make_samples(texts: list[str], labels: list[str] | None = None) -> list[Sample]:
    return [
        Sample(row, f"t.jsonl line {row + 1}", (Part("text", text),), labels[row] if labels else "")
        for row, text in enumerate(texts)
    ]


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
    shapes: tuple[dataset.Shape, ...], found: list[str], chosen: dict[str, str], want: dict[str, str]
) -> None:
    assert dataset.find_columns(found, chosen, shapes, "t.jsonl") == want


def test_a_missing_column_is_named_with_those_there_and_the_nearest() -> None:
    with pytest.raises(DataError) as caught:
        dataset.find_columns(["idx", "sentence", "label"], {"text": "sentense"}, CLASSIFY, "train.jsonl")
    assert caught.value.message == (
        "spec.data[0].columns.text (sentense) must be a column of train.jsonl, which has idx, sentence, label;"
        " did you mean sentence?"
    )


def test_columns_that_fit_no_shape_are_listed_beside_what_is_needed() -> None:
    with pytest.raises(DataError) as caught:
        dataset.find_columns(["x", "y"], {}, INSTRUCT, "t.csv")
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
    assert dataset.read_text(Record("t.jsonl line 3", values), "text", findings) is None
    assert findings.kept == [f"t.jsonl line 3: {want}"]


@pytest.mark.parametrize(
    ("value", "want"),
    [("pos", "pos"), (" pos ", "pos"), (3, "3"), (0, "0"), (True, None), (1.0, None), ("", None), (None, None)],
)
def test_labels_are_texts_or_whole_numbers(value: object, want: str | None) -> None:
    findings = Findings()
    assert dataset.read_label(Record("p", {"label": value}), "label", findings) == want
    assert findings.total == (want is None)


# Labels.


@pytest.mark.parametrize(
    ("labels", "want"),
    [(["b", "a", "b"], ["a", "b"]), (["10", "9", "-1"], ["-1", "9", "10"]), (["10", "9", "x"], ["10", "9", "x"])],
    ids=["letters", "numbers", "both"],
)
def test_label_ids_are_stable(labels: list[str], want: list[str]) -> None:
    assert dataset.build_label_set(make_samples(labels, labels), "t") == want
    assert dataset.build_label_set(reversed(make_samples(labels, labels)), "t") == want


def test_one_class_only_is_refused() -> None:
    with pytest.raises(DataError, match="must have at least two different labels; every row has positive"):
        dataset.build_label_set(make_samples(["a", "b"], ["positive"] * 2), "t.jsonl")


def test_a_text_column_taken_for_labels_is_refused() -> None:
    texts = [str(number) for number in range(1001)]
    with pytest.raises(DataError, match="must have at most 1000 different labels; it has 1001"):
        dataset.build_label_set(make_samples(texts, texts), "t.jsonl")


def test_an_unseen_label_is_named_with_the_nearest_known_one() -> None:
    findings = Findings()
    dataset.check_labels(make_samples(["x", "y"], ["positiv", "negative"]), ["negative", "positive"], findings)
    assert findings.kept == [
        "t.jsonl line 1: label (positiv) must be one of the training rows' labels negative, positive;"
        " did you mean positive?"
    ]


# The split.


def test_a_split_is_repeatable_stratified_and_complete() -> None:
    samples = make_samples([f"text {n}" for n in range(200)], ["a"] * 150 + ["b"] * 50)
    shares = {"validation": 0.1, "test": 0.2}
    splits = dataset.split_samples(samples, shares, seed=13, stratify=True)
    counts = {name: Counter(sample.label for sample in members) for name, members in splits.items()}
    assert counts == {"train": {"a": 105, "b": 35}, "validation": {"a": 15, "b": 5}, "test": {"a": 30, "b": 10}}
    assert sorted(sample.row for members in splits.values() for sample in members) == list(range(200))
    assert splits == dataset.split_samples(samples, shares, seed=13, stratify=True)
    assert splits != dataset.split_samples(samples, shares, seed=14, stratify=True)


def test_many_small_classes_still_give_the_whole_share() -> None:
    labels = [f"class {n // 3}" for n in range(90)]
    splits = dataset.split_samples(
        make_samples([str(n) for n in range(90)], labels), {"test": 0.1}, seed=0, stratify=True
    )
    assert len(splits["test"]) == 9


def test_equal_texts_stay_on_one_side_whatever_their_label_blanks_and_case() -> None:
    texts = [f"Text  {n // 4}" if n % 2 else f"text {n // 4} " for n in range(400)]
    labels = [("a", "b")[n % 2] for n in range(400)]
    splits = dataset.split_samples(make_samples(texts, labels), {"validation": 0.25}, seed=1, stratify=True)
    sides = [{dataset.build_text_key(sample) for sample in members} for members in splits.values()]
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
        dataset.split_samples(make_samples(texts), {"validation": share}, seed=0, stratify=False)
    assert caught.value.message == want


# The file.


def tokenize_letters(samples: Sequence[Sample]) -> list[TokenizedRow]:
    return [
        TokenizedRow(
            [ord(letter) for letter in sample.parts[0].text], labels=[-100, *[1] * (len(sample.parts[0].text) - 1)]
        )
        for sample in samples
    ]


def test_rows_are_written_in_batches_in_their_order(tmp_path: Path) -> None:
    samples = make_samples(["ab" + "c" * (n % 5) for n in range(2500)])
    findings = Findings()
    schema = dataset.build_schema(is_labelled=False, is_pair=False)
    counts = dataset.save_rows(tmp_path / "f", samples, tokenize_letters, schema, findings)
    table = pyarrow.parquet.read_table(tmp_path / "f")
    tokens = pyarrow.list_(pyarrow.int32())
    assert [(field.name, field.type) for field in table.schema] == [
        ("row", pyarrow.int64()),
        ("input_ids", tokens),
        ("labels", tokens),
    ]
    assert table["row"].to_pylist() == list(range(2500))
    assert table["input_ids"][1].as_py() == [97, 98, 99]
    assert (counts.num_tokens, counts.num_learned, counts.num_truncated, findings.total) == (10_000, 7_500, 0, 0)


def test_a_split_without_rows_has_a_file_too(tmp_path: Path) -> None:
    schema = dataset.build_schema(is_labelled=True, is_pair=True)
    dataset.save_rows(tmp_path / "f", [], tokenize_letters, schema, Findings())
    table = pyarrow.parquet.read_table(tmp_path / "f")
    assert (table.num_rows, table.column_names) == (0, ["row", "input_ids", "label", "token_type_ids"])


def test_a_row_of_which_nothing_would_be_learned_is_a_finding(tmp_path: Path) -> None:
    findings = Findings()
    schema = dataset.build_schema(is_labelled=False, is_pair=False)
    dataset.save_rows(tmp_path / "f", make_samples(["ab", "c"]), tokenize_letters, schema, findings)
    assert findings.kept == [
        "t.jsonl line 2: must keep a token to learn within spec.training.maxLength; all 1 tokens that were kept belong"
        " to the prompt"
    ]

"""Which columns play which roles, and what is wrong with a single value."""

# ruff: noqa: E501 - a case per line keeps the tables readable

import pytest

from finetune_api.errors import DataError
from finetune_trainer.data import columns, values
from finetune_trainer.data.columns import Shape
from finetune_trainer.data.findings import Findings
from finetune_trainer.data.readers import Record
from finetune_trainer.tasks.causal_lm import prepare as causal_lm
from finetune_trainer.tasks.instruction_tuning import prepare as instruction_tuning
from finetune_trainer.tasks.sequence_classification import prepare as sequence_classification

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
    shapes: tuple[Shape, ...], found: list[str], chosen: dict[str, str], want: dict[str, str]
) -> None:
    assert columns.find_columns(found, chosen, shapes, "t.jsonl") == want


def test_a_missing_column_is_named_with_those_there_and_the_nearest() -> None:
    with pytest.raises(DataError) as caught:
        columns.find_columns(["idx", "sentence", "label"], {"text": "sentense"}, CLASSIFY, "train.jsonl")
    assert caught.value.message == (
        "spec.data[0].columns.text (sentense) must be a column of train.jsonl, which has idx, sentence, label;"
        " did you mean sentence?"
    )


def test_columns_that_fit_no_shape_are_listed_beside_what_is_needed() -> None:
    with pytest.raises(DataError) as caught:
        columns.find_columns(["x", "y"], {}, INSTRUCT, "t.csv")
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


@pytest.mark.parametrize(("row", "want"), VALUES)
def test_a_bad_value_is_a_finding_with_its_place(row: dict[str, object], want: str) -> None:
    findings = Findings()
    assert values.read_text(Record("t.jsonl line 3", row), "text", findings) is None
    assert findings.kept == [f"t.jsonl line 3: {want}"]

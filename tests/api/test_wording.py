"""How values are shown, names suggested, lists joined and texts cut."""

import pytest

from finetune_api import wording

SHOWN = [
    (None, "null"),
    (True, "true"),
    (0.5, "0.5"),
    ("plain", "plain"),
    ("s3://bucket/key", "s3://bucket/key"),
    ("", '""'),
    ("ends with a blank ", '"ends with a blank "'),
    ("two\nlines", r'"two\nlines"'),
    ("\x1b[31m", r'"\x1b[31m"'),
    ("zero\u200bwidth", r'"zero\u200bwidth"'),
    ('a "quoted" word', r'"a \"quoted\" word"'),
    ({"a": 1}, "an object"),
    ([1], "a list"),
    ("x" * 100, "x" * 79 + "…"),
]


@pytest.mark.parametrize(("value", "want"), SHOWN, ids=[repr(value)[:20] for value, _ in SHOWN])
def test_a_value_is_shown_with_quotes_where_blanks_matter(value: object, want: str) -> None:
    assert wording.show_value(value) == want


def test_control_characters_are_escaped_but_for_those_that_are_meant() -> None:
    assert wording.escape_controls("a\tb\nc\x00\u202e", keep="\n") == "a\\tb\nc\\x00\\u202e"


@pytest.mark.parametrize(
    ("wrong", "want"),
    [
        ("bachSize", "; did you mean batchSize?"),
        ("batch_size", "; did you mean batchSize?"),
        ("per_device_train_batch_size", "; did you mean batchSize?"),
        ("BATCHSIZE", "; did you mean batchSize?"),
        ("colour", ""),
    ],
)
def test_the_name_that_was_meant_is_suggested(wrong: str, want: str) -> None:
    aliases = {"perdevicetrainbatchsize": "batchSize", "colour": "elsewhere"}
    assert wording.suggest(wrong, ["batchSize", "epochs"], aliases) == want


@pytest.mark.parametrize(
    ("names", "want"),
    [([], ""), (["a"], "a"), (["a", "b", "c"], "a, b and c"), (list("abcdefg"), "a, b, c and 4 more")],
)
def test_names_are_joined_and_what_is_too_many_is_counted(names: list[str], want: str) -> None:
    assert wording.join_names(names, limit=3, last=" and ") == want


def test_repeated_texts_are_kept_once_and_those_left_out_are_counted() -> None:
    assert wording.keep_first(["a", "b", "a"], 2) == ["a", "b"]
    assert wording.keep_first(["a", "b", "c", "d"], 3) == ["a", "b", "2 more warnings are left out"]

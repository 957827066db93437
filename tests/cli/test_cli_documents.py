"""How text becomes data: as in kubectl, line by line, and bounded whatever the text is."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from finetune_cli.manifests import documents, scalars

KUBECTL = Path(sys.executable).parent / "kubectl"
WORDS = """
2e-4 1.5e-4 2E-4 1e3 1e+3 1e .5 5. -.5 .5e3 1.50 3.0 0888.5 0 -0 +1 00 -00 0123 -017 089 0o17 0O7 0o8 0x1F
0X1f 0x 0b11 0B1 -0b1 0b12 0b 1_000 1__0 0_1 _1 -_1 1_ 1_e3 ._5 18446744073709551615 18446744073709551616
-9223372036854775808 -9223372036854775809 00000000000000000000000000000000000000123 1e400 y Y n N yes No TRUE
off ON true truE ~ null NULL nUll 1:30 2001-01-01 . + v1 s3://a/b <<
""".split()  # noqa: SIM905 - a table of words, not of quotes


def test_plain_words_mean_what_they_mean_to_kubectl() -> None:
    assert len(WORDS) > 60
    rows = "".join(f"  k{number}: {word}\n" for number, word in enumerate(WORDS))
    manifest = f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: words}}\ndata:\n{rows}"
    # A label that is set offline makes kubectl print what it read; no server is asked.
    command = [str(KUBECTL), "label", "--local", "--filename=-", "--output=json", "a=b"]
    result = subprocess.run(command, input=manifest, capture_output=True, text=True, check=True)
    want = json.loads(result.stdout)["data"]
    found = {f"k{number}": scalars.parse_plain(word) for number, word in enumerate(WORDS)}
    assert {key: _describe(value) for key, value in found.items()} == {
        key: _describe(value) for key, value in want.items()
    }


def _describe(value: object) -> tuple[str, object]:
    """Pair a value with its JSON type, in which 1 and 1.0 are the same and numbers are as exact as a float."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "number", float(value)
    return type(value).__name__, value


def test_a_number_remembers_how_it_was_written() -> None:
    assert [f"{scalars.parse_plain(word)}" for word in ("2e-4", "1_0.50", "5.")] == ["2e-4", "1_0.50", "5."]


def test_a_number_of_a_million_digits_is_text_to_kubectl_and_to_us() -> None:
    assert [type(scalars.parse_plain(word)) for word in ("1" * 1_000_000, "0x" + "f" * 1_000_000)] == [str, str]


def test_every_field_has_the_line_it_begins_in() -> None:
    text = "a: 1\nb:\n- c: 2\n  d: {e: 3,\n      f: 4}\n- x\n---\n\ng: 5\n"
    first, second = documents.parse_documents(text)
    assert first.data == {"a": 1, "b": [{"c": 2, "d": {"e": 3, "f": 4}}, "x"]}
    assert first.lines == {
        "": 1,
        "a": 1,
        "b": 2,
        "b[0]": 3,
        "b[0].c": 3,
        "b[0].d": 4,
        "b[0].d.e": 4,
        "b[0].d.f": 5,
        "b[1]": 6,
    }
    assert (second.line, second.lines) == (9, {"": 9, "g": 9})


BAD_YAML = "document must be valid YAML; "
PYTHON_TAG = "tag:yaml.org,2002:python/object:os.system"
TAB = "while scanning for the next token, found character '\\t' that cannot start any token"
PROBLEMS = {
    "a key twice": ("a: 1\nb: 2\na: 3\n", 3, "a must be given once; it stands in line 1 too"),
    "a quoted key twice": ("s:\n  a: 1\n  'a': 1\n", 3, "s.a must be given once; it stands in line 2 too"),
    "a key twice in a line": ("- {a: 1, a: 2}\n", 1, "[0].a must be given once; it stands in line 1 too"),
    "a tag that makes an object": (
        "a: !!python/object:os.system x\n",
        1,
        f"a must not carry the tag {PYTHON_TAG}; remove it",
    ),
    "a tag of one's own": ("a: !secret x\n", 1, "a must not carry the tag !secret; remove it"),
    "a list as key": ("? [a, b]\n: 1\n", 1, "document must have words as keys; a list or an object can't be one"),
    "a bracket left open": (
        "a: [1,\nb: 2\n",
        3,
        BAD_YAML + "while parsing a flow sequence, expected ',' or ']', but got '<stream end>'",
    ),
    "an alias to nothing": ("a: *b\n", 1, BAD_YAML + "found undefined alias 'b'"),
    "an alias to itself": ("a: &b [*b]\n", 1, BAD_YAML + "an alias refers to what it stands in"),
    "a tab": ("\tb: 1\n", 1, BAD_YAML + TAB),
    "a NUL": ("a: \x00\n", 1, BAD_YAML + "unacceptable character #x0000: special characters are not allowed"),
}


@pytest.mark.parametrize(("text", "line", "message"), PROBLEMS.values(), ids=PROBLEMS)
def test_what_kubectl_would_refuse_or_lose_is_a_problem_with_its_line(text: str, line: int, message: str) -> None:
    found = [(problem.line, problem.message) for item in documents.parse_documents(text) for problem in item.problems]
    assert found == [(line, message)]


def test_documents_before_an_unreadable_one_are_kept() -> None:
    first, second = documents.parse_documents("a: 1\n---\nb: [\n")
    assert (first.data, first.problems) == ({"a": 1}, [])
    assert (second.data, len(second.problems)) == (None, 1)


def test_merge_keys_and_aliases_are_followed_without_false_duplicates() -> None:
    text = "base: &base {a: 1, b: 2}\none: &one {<<: *base, b: 3}\ntwo: *one\n"
    [document] = documents.parse_documents(text)
    assert document.data == {"base": {"a": 1, "b": 2}, "one": {"a": 1, "b": 3}, "two": {"a": 1, "b": 3}}
    assert document.problems == []


def test_json_with_tabs_is_read_as_kubectl_reads_it() -> None:
    [document] = documents.parse_documents('{\n\t"a": {"b":\t"x\\ty"},\n\t"c": 1e3\n}\n')
    assert (document.data, document.lines["c"]) == ({"a": {"b": "x\ty"}, "c": 1000.0}, 3)


def _nest_aliases(width: int, levels: int) -> str:
    rows = [f"a0: &a0 [{', '.join('x' * width)}]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * width)}]" for n in range(1, levels)]
    return "\n".join(rows)


@pytest.mark.parametrize(
    ("text", "want"),
    [
        (_nest_aliases(9, 9), "it has more than 200,000 values, aliases followed"),
        (_nest_aliases(1, 30_000), "with aliases it is nested deeper than 64 levels"),
        ("[" * 500_000, "it is nested deeper than 64 levels"),
        ("{a: " * 200_000, "it is nested deeper than 64 levels"),
        ("[" + "a," * 300_000 + "]", "it has more than 200,000 values, aliases followed"),
        ("- " * 300_000, "it is nested deeper than 64 levels"),
    ],
    ids=["aliases of aliases", "a chain of aliases", "brackets", "braces", "a long list", "dashes"],
)
def test_a_bomb_is_refused_before_it_is_built(text: str, want: str) -> None:
    [document] = documents.parse_documents(text)
    assert [problem.message for problem in document.problems] == [BAD_YAML + want]
    assert document.data is None

"""Whatever bytes a file has, reading it ends with rows or with a DataError; the same of columns and of rows."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from bad_files import BAD_FILES, ODD_FILES, ROWS, write_csv, write_jsonl, write_parquet
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetune_api.errors import DataError
from finetune_api.tasks import TASKS
from finetune_trainer import tasks
from finetune_trainer.data import readers, sources
from finetune_trainer.data.findings import Findings
from finetune_trainer.data.sources import LocalFile

# A busy machine makes the inputs slowly, too.
_LEFT_OUT = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
_SETTINGS = settings(max_examples=60, deadline=None, suppress_health_check=_LEFT_OUT)
_NAMES = st.sampled_from([f"t{suffix}{end}" for suffix in readers.SUFFIXES for end in ("", ".gz", ".zst")])
_SEEDS = [
    *(write_jsonl(ROWS[:5]), write_csv(ROWS[:5]), write_parquet(ROWS[:5]), json.dumps(ROWS[:5]).encode()),
    *(content for case in (*BAD_FILES, *ODD_FILES) for content in case.files.values() if len(content) < 5000),
]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A file that was read or refused, with bytes changed, put in, left out or doubled."""
    content = bytearray(draw(st.sampled_from(_SEEDS)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(content)))
        piece = draw(
            st.one_of(st.binary(max_size=4), st.sampled_from([b'"', b"\n", b"{", b"[", b"]", b",", b";", b"\xff"]))
        )
        end = at + draw(st.integers(0, 8))
        content[at:end] = piece
    return bytes(content)


def check_words(error: DataError) -> None:
    assert error.message
    assert error.remedy


def read(path: Path, name: str, content: bytes) -> None:
    path.write_bytes(content)
    findings = Findings()
    try:
        for _ in readers.read_records(path, name, findings):
            pass
        findings.raise_if_any()
    except DataError as error:
        check_words(error)


@_SETTINGS
@given(name=_NAMES, content=st.one_of(st.binary(max_size=300), mutated()), is_packed=st.booleans())
def test_reading_ends_with_rows_or_a_data_error(name: str, content: bytes, *, is_packed: bool, tmp_path: Path) -> None:
    read(tmp_path / "file", name, gzip.compress(content) if is_packed and name.endswith(".gz") else content)


_TEXTS = st.text(st.sampled_from("ab <|>0.1\n\u200b\ud83d\u00e9"), max_size=8)
_VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        _TEXTS,
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["role", "content", "from", "value", "name", "x"]), inner, max_size=3),
    ),
    max_leaves=6,
)
_KEYS = sorted(
    {
        name
        for task in TASKS
        for shape in tasks.find_preparation(task).SHAPES
        for names in (*shape.required.values(), *shape.optional.values())
        for name in names
    }
    | {"x", ""}
)
_ROWS = st.lists(st.dictionaries(st.sampled_from(_KEYS), _VALUES, max_size=4), min_size=1, max_size=5)
_COLUMNS = st.dictionaries(st.sampled_from(["text", "label", "prompt", "messages"]), st.sampled_from(_KEYS), max_size=2)


@pytest.mark.parametrize("task", TASKS)
@_SETTINGS
@given(rows=_ROWS, columns=_COLUMNS)
def test_columns_and_rows_end_with_samples_or_a_data_error(
    task: Any, rows: list[dict[str, Any]], columns: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    findings = Findings()
    try:
        samples, _ = sources.open_source(
            "train", [LocalFile(path, path.name)], tasks.find_preparation(task), columns, findings
        )
        for sample in samples:
            assert all(part.text.strip() for part in sample.parts)
        findings.raise_if_any()
    except DataError as error:
        check_words(error)

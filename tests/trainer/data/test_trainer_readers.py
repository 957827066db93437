"""Reading rows: every format, plain and compressed, and what is wrong with a file named by file and line."""

# ruff: noqa: E501 - a case per line keeps the table readable

import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from finetune_api.errors import DataError
from finetune_trainer.data import readers
from finetune_trainer.data.findings import BadRowsError, Findings
from finetune_trainer.data.readers import Record

ROWS = [{"text": "one", "label": "a"}, {"text": "two\nlines", "label": "b"}, {"text": 'say "hé"', "label": "a"}]


def read(tmp_path: Path, name: str, content: bytes) -> list[Record]:
    """Read a file and end with its findings, as the stage does."""
    path = tmp_path / "local"
    path.write_bytes(content)
    findings = Findings()
    rows = list(readers.read_records(path, name, findings))
    findings.raise_if_any()
    return rows


def write_parquet(rows: list[dict[str, str]]) -> bytes:
    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), stream)
    return stream.getvalue()


JSONL = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()
CSV = 'text,label\none,a\n"two\nlines",b\n"say ""hé""",a\n'.encode()

FORMATS = [
    pytest.param("t.jsonl", JSONL, ["line 1", "line 2", "line 3"], id="jsonl"),
    pytest.param("t.jsonl", b"\xef\xbb\xbf" + JSONL, ["line 1", "line 2", "line 3"], id="jsonl with BOM"),
    pytest.param("t.jsonl", JSONL.replace(b"\n", b"\r\n"), ["line 1", "line 2", "line 3"], id="jsonl with CRLF"),
    pytest.param("t.jsonl", JSONL.replace(b"\n", b"\n\n"), ["line 1", "line 3", "line 5"], id="jsonl with blank lines"),
    pytest.param("t.jsonl", JSONL.rstrip(), ["line 1", "line 2", "line 3"], id="jsonl without last line end"),
    pytest.param("t.json", json.dumps(ROWS).encode(), ["row 1", "row 2", "row 3"], id="json"),
    pytest.param("t.csv", CSV, ["line 2", "line 3", "line 5"], id="csv with a quoted newline"),
    pytest.param("T.CSV", b"\xef\xbb\xbf" + CSV, ["line 2", "line 3", "line 5"], id="csv with BOM, in capitals"),
    pytest.param("t.tsv", CSV.replace(b",", b"\t"), ["line 2", "line 3", "line 5"], id="tsv"),
    pytest.param("t.parquet", write_parquet(ROWS), ["row 1", "row 2", "row 3"], id="parquet"),
    pytest.param("t.jsonl.gz", gzip.compress(JSONL), ["line 1", "line 2", "line 3"], id="gzip"),
    pytest.param(
        "t.jsonl.gz",
        gzip.compress(JSONL[:30]) + gzip.compress(JSONL[30:]),
        ["line 1", "line 2", "line 3"],
        id="gzip in two members",
    ),
    pytest.param("t.csv.zst", zstandard.compress(CSV), ["line 2", "line 3", "line 5"], id="zstd"),
]


@pytest.mark.parametrize(("name", "content", "want_places"), FORMATS)
def test_every_format_gives_the_same_rows(tmp_path: Path, name: str, content: bytes, want_places: list[str]) -> None:
    found = read(tmp_path, name, content)
    assert [record.place for record in found] == [f"{name} {place}" for place in want_places]
    assert [dict(record.values) for record in found] == ROWS


def test_each_line_of_a_text_file_is_a_sample(tmp_path: Path) -> None:
    found = read(tmp_path, "t.txt", b"one\n\n two \r\n")
    assert [(record.place, record.values) for record in found] == [
        ("t.txt line 1", {"text": "one"}),
        ("t.txt line 3", {"text": " two "}),
    ]


def break_line_17(content: bytes = b'{"text": "no end", \n') -> bytes:
    lines = [b'{"text": "good", "label": "a"}\n'] * 40
    lines[16] = content
    return b"".join(lines)


def write_column(column: Any) -> bytes:
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.table({"text": column}), sink)
    return bytes(sink.getvalue())


def write_latin_parquet() -> bytes:
    """Write a text that is no UTF-8, as writers do that don't check."""
    offsets, content = pyarrow.array([b"caf\xe9"]).buffers()[1:]
    assert offsets is not None
    return write_column(pyarrow.StringArray.from_buffers(1, offsets, content))


def write_far_future_parquet() -> bytes:
    return write_column(pyarrow.array([2**62], pyarrow.timestamp("ms")))


BAD_FILES = [
    pytest.param("t.jsonl", lambda: b"", "t.jsonl must have at least one row; it is empty", id="empty"),
    pytest.param("t.csv", lambda: b"text,label\n", "t.csv must have at least one row; it is empty", id="header only"),
    pytest.param("t.json", lambda: b"  ", "t.json must have at least one row; it is empty", id="empty json"),
    pytest.param("t.xlsx", lambda: b"x", "t.xlsx must end with one of .jsonl", id="unknown format"),
    pytest.param("t.jsonl", break_line_17, "t.jsonl line 17: must be one JSON object", id="broken JSON in line 17"),
    pytest.param("t.jsonl", lambda: break_line_17(b"[1, 2]\n"), "t.jsonl line 17: must be a JSON object with named columns, not list", id="a list in line 17"),
    pytest.param("t.jsonl", lambda: break_line_17(b'{"text": "caf\xe9"}\n'), "t.jsonl line 17: must be UTF-8; byte 14 is not", id="invalid UTF-8 in line 17"),
    pytest.param("t.jsonl", lambda: break_line_17(b'{"text": "' + b"x" * 2**20 + b'"}\n'), "t.jsonl line 17: must have at most 1048576 bytes", id="a row of 1 MB"),
    pytest.param("t.jsonl", lambda: break_line_17(b"[" * 100_000 + b"\n"), "t.jsonl line 17: must be nested at most 32 levels deep", id="brackets without end"),
    pytest.param("t.jsonl", lambda: break_line_17(b'{"a":' * 40 + b"1" + b"}" * 40 + b"\n"), "t.jsonl line 17: must be nested at most 32 levels deep", id="nested too deep"),
    pytest.param("t.jsonl", lambda: break_line_17(b'{"a": ' + b"9" * 5000 + b"}\n"), "t.jsonl line 17: must be one JSON object", id="a number without end"),
    pytest.param("t.jsonl.gz", lambda: gzip.compress(break_line_17(b'{"text": "x"}\n'))[:-10], "t.jsonl.gz after line 0: Truncated compressed stream", id="gzip that ends early"),
    pytest.param("t.jsonl.zst", lambda: zstandard.compress(break_line_17(b'{"text": "x"}\n'))[:-4], "t.jsonl.zst after line 0: Truncated compressed stream", id="zstd that ends early"),
    pytest.param("t.jsonl.gz", lambda: break_line_17(b"{}\n"), "t.jsonl.gz after line 0: ", id="not gzip at all"),
    pytest.param("t.jsonl.gz", lambda: gzip.compress(b"\n" * 2**24), "t.jsonl.gz must not grow to more than 200 times its size", id="a bomb"),
    pytest.param("t.csv", lambda: b'text,label\none,a\n"two,b\n', "t.csv line 3: must be a row of CSV; unexpected end of data", id="a quote without end"),
    pytest.param("t.csv", lambda: b'text,label\none,a\n"two"x,b\n', "t.csv line 3: must be a row of CSV", id="text after a quote"),
    pytest.param("t.csv", lambda: b"text,label\none,a\ntwo\n", "t.csv line 3: must have 2 fields as the header has, not 1", id="a field too few"),
    pytest.param("t.csv", lambda: b"text,text\none,a\n", "t.csv line 1: must be a header of different column names", id="a column twice"),
    pytest.param("t.json", lambda: b'[{"a": 1},\n{"a": }]', "t.json line 2: must be JSON", id="broken json"),
    pytest.param("t.json", lambda: b'{"a": [1]}', "t.json must be a JSON list of objects, not dict", id="json that is no list"),
    pytest.param("t.json", lambda: b'[{"a": 1},\n{"a": "\xff"}]', "t.json line 2: must be UTF-8", id="json in another encoding"),
    pytest.param("t.parquet", lambda: write_parquet(ROWS)[:-8], "t.parquet must be a whole parquet file", id="parquet cut short"),
    pytest.param("t.parquet.gz", lambda: gzip.compress(write_parquet(ROWS)), "t.parquet.gz must not be compressed from outside", id="compressed parquet"),
    pytest.param("t.parquet", lambda: write_parquet([{"text": "x" * (2**20 + 1)}]), "t.parquet row 1: must have at most 1048576 bytes", id="a parquet row of 1 MB"),
    pytest.param("t.parquet", write_latin_parquet, "t.parquet rows 1 to 1 must hold texts in UTF-8", id="parquet in another encoding"),
    pytest.param("t.parquet", write_far_future_parquet, "t.parquet rows 1 to 1 must hold texts in UTF-8 and values Python can hold", id="a date Python can't hold"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "make", "want"), BAD_FILES)
def test_a_bad_file_ends_with_65_and_its_place(tmp_path: Path, name: str, make: Callable[[], bytes], want: str) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, name, make())
    assert caught.value.exit_code == 65
    assert caught.value.message.startswith(want), caught.value.message
    assert caught.value.remedy


def test_rows_after_a_bad_one_are_still_read(tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_bytes(break_line_17(b'{"text": "' + b"x" * 3 * 2**20 + b'"}\n'))
    findings = Findings()
    found = list(readers.read_records(path, "t.jsonl", findings))
    assert [len(found), found[-1].place, findings.total] == [39, "t.jsonl line 40", 1]


def test_all_bad_rows_are_counted_and_a_hundred_kept(tmp_path: Path) -> None:
    with pytest.raises(BadRowsError) as caught:
        read(tmp_path, "t.jsonl", b"nonsense\n" * 250)
    assert (caught.value.total, len(caught.value.findings)) == (250, 100)
    assert caught.value.findings[99].startswith("t.jsonl line 100: ")
    assert caught.value.message.endswith("; 250 errors in all")
    assert caught.value.message.count("must be one JSON object") == 5

"""Reading rows: every format, plain and compressed, and what is wrong with a file named by file and line."""

# ruff: noqa: E501 - a case per line keeps the table readable

import gzip
import io
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from lying_parquet import write_lying

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
    pytest.param("t.csv", lambda: b"text,label\n", "t.csv must have at least one row; it has a header only", id="header only"),
    pytest.param("t.json", lambda: b"  ", "t.json must have at least one row; it is empty", id="empty json"),
    pytest.param("t.xlsx", lambda: b"x", "t.xlsx must end with one of .jsonl", id="unknown format"),
    pytest.param("t.jsonl", break_line_17, "t.jsonl line 17: must be one JSON object", id="broken JSON in line 17"),
    pytest.param("t.jsonl", lambda: break_line_17(b"[1, 2]\n"), "t.jsonl line 17: must be a JSON object with named columns, not list", id="a list in line 17"),
    pytest.param("t.jsonl", lambda: break_line_17(b'{"text": "caf\xe9"}\n'), "t.jsonl line 17: must be UTF-8; byte 14 is not", id="invalid UTF-8 in line 17"),
    pytest.param("t.jsonl", lambda: break_line_17(b'{"text": "' + b"x" * 2**20 + b'"}\n'), "t.jsonl line 17: must have at most 1048576 bytes", id="a row of 1 MB"),
    pytest.param("t.jsonl", lambda: break_line_17(b"[" * 100_000 + b"\n"), "t.jsonl line 17: must be nested at most 32 levels deep", id="brackets without end"),
    pytest.param("t.jsonl", lambda: break_line_17(b'{"a":' * 40 + b"1" + b"}" * 40 + b"\n"), "t.jsonl line 17: must be nested at most 32 levels deep", id="nested too deep"),
    pytest.param("t.jsonl", lambda: break_line_17(b'{"a": ' + b"9" * 5000 + b"}\n"), "t.jsonl line 17: must be one JSON object", id="a number without end"),
    pytest.param("t.jsonl.gz", lambda: gzip.compress(break_line_17(b'{"text": "x"}\n'))[:-10], "t.jsonl.gz: Truncated compressed stream", id="gzip that ends early"),
    pytest.param("t.jsonl.zst", lambda: zstandard.compress(break_line_17(b'{"text": "x"}\n'))[:-4], "t.jsonl.zst: Truncated compressed stream", id="zstd that ends early"),
    pytest.param("t.jsonl.gz", lambda: break_line_17(b"{}\n"), "t.jsonl.gz must be compressed with gzip, as its name says; it is not", id="not gzip at all"),
    pytest.param("t.jsonl.gz", lambda: gzip.compress(b"\n" * 2**24), "t.jsonl.gz must not grow to more than 200 times its size", id="a bomb"),
    pytest.param("t.csv", lambda: b'text,label\none,a\n"two,b\n', "t.csv line 3: must be a row of CSV; unexpected end of data", id="a quote without end"),
    pytest.param("t.csv", lambda: b'text,label\none,a\n"two"x,b\n', "t.csv line 3: must be a row of CSV", id="text after a quote"),
    pytest.param("t.csv", lambda: b"text,label\none,a\ntwo\n", "t.csv line 3: must have 2 fields as the header has, not 1", id="a field too few"),
    pytest.param("t.csv", lambda: b"text,text\none,a\n", "t.csv line 1: must name each column once; text stands in columns 1, 2", id="a column twice"),
    pytest.param("t.json", lambda: b'[{"a": 1},\n{"a": }]', "t.json line 2: must be JSON", id="broken json"),
    pytest.param("t.json", lambda: b"7", "t.json line 1: must be a JSON object with named columns, not int", id="json that is no list"),
    pytest.param("t.json", lambda: b'[{"a": 1},\n{"a": "\xff"}]', "t.json line 2: must be UTF-8", id="json in another encoding"),
    pytest.param("t.parquet", lambda: write_parquet(ROWS)[:-8], "t.parquet must be a whole parquet file", id="parquet cut short"),
    pytest.param("t.parquet.gz", lambda: gzip.compress(write_parquet(ROWS)), "t.parquet.gz must not be compressed from outside", id="compressed parquet"),
    pytest.param("t.parquet", lambda: write_parquet([{"text": "x" * (2**20 + 1)}]), "t.parquet row 1: must have at most 1048576 bytes", id="a parquet row of 1 MB"),
    pytest.param("t.parquet", write_latin_parquet, "t.parquet rows 1 to 1: column text must hold texts in UTF-8", id="parquet in another encoding"),
    pytest.param("t.parquet", write_far_future_parquet, "t.parquet rows 1 to 1: column text must hold texts in UTF-8 and values Python can hold", id="a date Python can't hold"),
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


# Bounds: what a small file may become.


def write_repeated(value: str, count: int) -> bytes:
    """Write a parquet file in which one value stands for many rows."""
    sink = pyarrow.BufferOutputStream()
    indices = pyarrow.array([0] * count, pyarrow.int32())
    table = pyarrow.table({"text": pyarrow.DictionaryArray.from_arrays(indices, pyarrow.array([value]))})
    pyarrow.parquet.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue())


def write_turns(text: str, count: int) -> bytes:
    """Write conversations whose turns are all one value."""
    sink = pyarrow.BufferOutputStream()
    turns = pyarrow.array([[{"role": "user", "content": text}] * 16] * count)
    pyarrow.parquet.write_table(pyarrow.table({"messages": turns}), sink, compression="zstd")
    return bytes(sink.getvalue())


def write_long_list(count: int) -> bytes:
    sink = pyarrow.BufferOutputStream()
    lists = pyarrow.ListArray.from_arrays(
        pyarrow.array([0, count], pyarrow.int32()), pyarrow.nulls(count, pyarrow.int8())
    )
    pyarrow.parquet.write_table(pyarrow.table({"text": lists}), sink, compression="zstd")
    return bytes(sink.getvalue())


def write_columns(count: int) -> bytes:
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.table({f"c{index}": ["x"] for index in range(count)}), sink)
    return bytes(sink.getvalue())


_WATCHED = pyarrow.proxy_memory_pool(pyarrow.default_memory_pool())
"""Never let go: what was read may be in memory for longer than a test."""

BOMBS = [
    pytest.param("t.parquet", lambda: write_repeated("x" * 2**20, 7000), "must not grow to more than 67108864", id="a text in 7,000 rows"),
    pytest.param("t.parquet", lambda: write_repeated("x" * 2**25, 4), "must not grow to more than 67108864", id="a text of 32 MB"),
    pytest.param("t.parquet", lambda: write_turns("x" * 2**17, 200), "must not grow to more than 67108864", id="a turn in 200 conversations"),
    pytest.param("t.parquet", lambda: write_long_list(2**26 + 1), "at most 67108864 values in a column", id="a list without end"),
    pytest.param("t.parquet", lambda: write_lying(num_bytes=2**31 - 1), "t.parquet: column text in row group 1 must have pages of at most 67108864 bytes; one states 2147483647", id="a page that states 2 GiB"),
    pytest.param("t.parquet", lambda: write_lying(in_dictionary=True, num_bytes=2**31 - 1), "must have pages of at most 67108864 bytes; one states 2147483647", id="a dictionary that states 2 GiB"),
    pytest.param("t.parquet", lambda: write_lying(num_bytes=-1), "must have pages of at most 67108864 bytes; one states -1", id="a page that states less than nothing"),
    pytest.param("t.parquet", lambda: write_lying(in_dictionary=True, num_values=2**31 - 1), "must have dictionaries no longer than their page of", id="a dictionary that states 2 billion values"),
    pytest.param("t.parquet", lambda: write_lying(num_values=2**31 - 1), "must have pages of 2000 values, as the footer says; they state more", id="a page that states 2 billion values"),
    pytest.param("t.parquet", lambda: write_lying(num_compressed=2**31 - 1), "must have pages that lie within their column; one doesn't", id="a page beyond the end of the file"),
    pytest.param("t.parquet", lambda: write_columns(1001), "t.parquet must have at most 1000 columns, not 1001", id="parquet with 1,001 columns"),
    pytest.param("t.csv", lambda: b",".join(b"c%d" % index for index in range(1001)) + b"\n", "t.csv line 1: must have at most 1000 columns, not 1001", id="csv with 1,001 columns"),
    pytest.param("t.jsonl", lambda: json.dumps({f"c{index}": 1 for index in range(1001)}).encode(), "t.jsonl line 1: must have at most 1000 columns, not 1001", id="json with 1,001 columns"),
    pytest.param("t.csv", lambda: b'text,label\n"' + b"x,\n" * 2**19, "t.csv line 2: must be a row of at most 1048576 bytes; a double quote may be open there", id="a quote that is never closed"),
    pytest.param("t.json", lambda: b'[{"a": "' + b"x" * 2**21 + b'"}]', "t.json row 1: must have at most 1048576 bytes", id="a json row of 2 MB"),
    pytest.param("t.json", lambda: b'{"a": "' + b"x" * 2**21 + b'"}', "t.json line 1: must have at most 1048576 bytes in one object", id="a json object of 2 MB"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "make", "want"), BOMBS)
def test_what_a_file_may_become_is_bounded_and_the_bound_named(
    tmp_path: Path, name: str, make: Callable[[], bytes], want: str
) -> None:
    content = make()
    parent = pyarrow.default_memory_pool()
    pyarrow.set_memory_pool(_WATCHED)
    with pytest.raises(DataError) as caught:
        read(tmp_path, name, content)
    pyarrow.set_memory_pool(parent)
    assert want in caught.value.message
    assert caught.value.remedy
    assert _WATCHED.max_memory() < 2**28


def test_a_list_is_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_bytes(b"[" + b", ".join([b"{}"] * 50_000) + b"]")
    tracemalloc.start()
    count = sum(1 for _ in readers.read_records(path, "t.json", Findings()))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 50_000
    assert peak < 2 * 2**20


# What a file holds counts, not what its name says.


OTHERWISE = [
    pytest.param("t.csv", CSV.replace(b",", b";"), "t.csv is separated by semicolons, not by commas; it is read so", id="semicolons"),
    pytest.param("t.csv", CSV.replace(b",", b"\t"), "t.csv is separated by tabs, not by commas; it is read so", id="tabs"),
    pytest.param("t.csv", CSV.replace(b",", b"|"), "t.csv is separated by vertical bars, not by commas; it is read so", id="bars"),
    pytest.param("t.tsv", CSV, "t.tsv is separated by commas, not by tabs; it is read so", id="commas"),
    pytest.param("t.csv", b"sep=;\r\n" + CSV.replace(b",", b";"), "t.csv is separated by semicolons, not by commas; it is read so", id="Excel's first line"),
    pytest.param("t.csv", CSV.replace(b"\none", b"\ntext,label\none"), "t.csv: 1 lines repeat the header, as in files put together; left out", id="files put together"),
    pytest.param("t.json", JSONL, "t.json holds one object a line, as .jsonl files do; it is read so", id="lines"),
    pytest.param("t.jsonl", json.dumps(ROWS).encode(), "t.jsonl holds a JSON document, as .json files do, not one object a line; it is read so", id="a list"),
    pytest.param("t.jsonl", json.dumps(ROWS, indent=2).encode(), "t.jsonl holds a JSON document, as .json files do, not one object a line; it is read so", id="a list over lines"),
    pytest.param("t.jsonl", "".join(json.dumps(row, indent=2) for row in ROWS).encode(), "t.jsonl holds a JSON document, as .json files do, not one object a line; it is read so", id="objects over lines"),
    pytest.param("t.jsonl", "".join(map(json.dumps, ROWS)).encode(), "t.jsonl holds a JSON document, as .json files do, not one object a line; it is read so", id="objects without line ends"),
    pytest.param("t.jsonl", ",\n".join(map(json.dumps, ROWS)).encode(), "t.jsonl holds a JSON document, as .json files do, not one object a line; it is read so", id="objects with commas between"),
    pytest.param("t.json", json.dumps({"data": ROWS}).encode(), "t.json: the rows are the list under data; the rest is left out", id="a list in an object"),
    pytest.param("t.json", json.dumps({"version": 1, "Rows": ROWS}, indent=1).encode(), "t.json: the rows are the list under Rows; the rest is left out", id="a list beside other things"),
    pytest.param("t.json", "".join(json.dumps(row, indent=2) for row in ROWS).encode(), None, id="objects in a .json"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "want"), OTHERWISE)
def test_what_a_file_holds_counts_and_is_said(tmp_path: Path, name: str, content: bytes, want: str | None) -> None:
    path = tmp_path / "local"
    path.write_bytes(content)
    findings = Findings()
    rows = [dict(record.values) for record in readers.read_records(path, name, findings)]
    assert rows == ROWS
    assert findings.notes[-1:] == ([want] if want else [])


def test_a_large_object_is_read_by_the_rows_in_it(tmp_path: Path) -> None:
    content = json.dumps({"version": 1, "data": ROWS * 20_000, "end": True}).encode()
    assert len(content) > 2**20
    for name in ("t.json", "t.jsonl"):
        found = read(tmp_path, name, content)
        assert (len(found), found[-1].place) == (60_000, f"{name} row 60000")


def test_a_column_without_a_name_is_numbered(tmp_path: Path) -> None:
    found = read(tmp_path, "t.csv", b",text,label\n0,one,a\n1,two,b\n")
    assert [dict(record.values) for record in found] == [
        {"Unnamed: 0": "0", "text": "one", "label": "a"},
        {"Unnamed: 0": "1", "text": "two", "label": "b"},
    ]


def test_a_separator_in_a_text_is_not_taken_for_the_separator(tmp_path: Path) -> None:
    assert len(read(tmp_path, "t.csv", b"text\none; two\nthree; four\n")) == 2
    found = read(tmp_path, "t.csv", b'text;label\n"a; b";x\n"c, d";y\n')
    assert [dict(record.values) for record in found] == [{"text": "a; b", "label": "x"}, {"text": "c, d", "label": "y"}]

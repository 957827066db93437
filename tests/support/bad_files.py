"""Files as people and programs leave them: those that are refused, with what mends each, and those that are read.

A refused file names the words of its message and of its remedy, and `mend` does what the remedy says: a test prepares
the mended files. A file that is read names the note that says how.
"""

import bz2
import csv
import gzip
import io
import json
import lzma
import pickle
import re
import tarfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pyarrow
import pyarrow.parquet
import zstandard

Files = Mapping[str, bytes]
Rows = Sequence[Mapping[str, Any]]

_QUESTIONS = {
    "lost_card": (
        "My card was stolen, number {n}. What do I need to do?",
        "I lost card {n} yesterday; please block it",
    ),
    "charged_twice": ("Why was I charged twice for payment {n}?", "Two payments, but I bought {n} once"),
    "transfer_time": ("How long until transfer {n} arrives?", "The transfer {n}, sent Monday, is not there"),
}


def make_rows(count: int = 60) -> list[dict[str, Any]]:
    """Return labelled questions, no two alike."""
    kinds = list(_QUESTIONS)
    return [{"text": _QUESTIONS[kinds[n % 3]][n % 2].format(n=n), "label": kinds[n % 3]} for n in range(count)]


def make_pairs(count: int = 40) -> list[dict[str, Any]]:
    """Return prompts with their completions."""
    return [{"prompt": f"define house {n}", "completion": f"a building in which {n} people live"} for n in range(count)]


ROWS = make_rows()


def write_jsonl(rows: Rows = ROWS) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def write_csv(rows: Rows = ROWS, separator: str = ",", line_end: str = "\n", *, with_header: bool = True) -> bytes:
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, list(rows[0]), delimiter=separator, lineterminator=line_end)
    if with_header:
        writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue().encode()


def write_parquet(rows: Rows | pyarrow.Table = ROWS, **options: Any) -> bytes:
    sink = pyarrow.BufferOutputStream()
    table = rows if isinstance(rows, pyarrow.Table) else pyarrow.Table.from_pylist(list(rows))
    pyarrow.parquet.write_table(table, sink, **options)
    return bytes(sink.getvalue())


def write_zip(names: Mapping[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in names.items():
            archive.writestr(name, content)
    return stream.getvalue()


def write_tar(name: str, content: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


WORKBOOK = write_zip({"[Content_Types].xml": b"<Types/>", "xl/workbook.xml": b"<workbook/>"})
DOCUMENT = write_zip({"[Content_Types].xml": b"<Types/>", "word/document.xml": b"<document/>"})
SHEET = write_zip({"mimetype": b"application/vnd.oasis.opendocument.spreadsheet", "content.xml": b"<x/>"})


def to(name: str, content: bytes) -> Callable[[Files], Files]:
    """Mend by another file in the place of all."""
    return lambda _: {name: content}


def rename(**names: str) -> Callable[[Files], Files]:
    """Mend by other names: `rename(**{"train.csv": "train.csv.gz"})`."""
    return lambda files: {names.get(name, name): content for name, content in files.items()}


def edit(old: bytes, new: bytes) -> Callable[[Files], Files]:
    """Mend by replacing bytes wherever they stand."""
    return lambda files: {name: content.replace(old, new) for name, content in files.items()}


def recode(encoding: str) -> Callable[[Files], Files]:
    """Mend by saving in UTF-8."""
    return lambda files: {name: content.decode(encoding).encode() for name, content in files.items()}


def drop(*names: str) -> Callable[[Files], Files]:
    """Mend by leaving files out."""
    return lambda files: {name: content for name, content in files.items() if name not in names}


@dataclass(frozen=True)
class BadFile:
    """Files that are refused.

    Attributes:
        sentence: what is wrong.
        files: by split and name: `train/train.csv`; all of a split lie in one folder.
        want: words of the message.
        want_remedy: words of the remedy.
        mend: does what the remedy says; its files are prepared.
        columns: `spec.data[0].columns`.
        mended_columns: the same, where that is what the remedy changes.
        task: of the run.
    """

    sentence: str
    files: Files
    want: tuple[str, ...]
    want_remedy: str
    mend: Callable[[Files], Files]
    columns: Mapping[str, str] = field(default_factory=dict)
    mended_columns: Mapping[str, str] | None = None
    task: str = "SequenceClassification"


@dataclass(frozen=True)
class OddFile:
    """Files that are read all the same.

    Attributes:
        sentence: what is odd.
        files: as those of `BadFile`.
        want_warning: words of the warning; empty where there is nothing to say.
        want_rows: how many rows there are in all.
    """

    sentence: str
    files: Files
    want_warning: tuple[str, ...] = ()
    want_rows: int = len(ROWS)
    columns: Mapping[str, str] = field(default_factory=dict)
    task: str = "SequenceClassification"


def change(index: int, **values: Any) -> list[dict[str, Any]]:
    """Return the rows with one of them changed."""
    return [row | values if number == index else row for number, row in enumerate(ROWS)]


def with_column(name: str, value: Any) -> list[dict[str, Any]]:
    return [row | {name: value} for row in ROWS]


LATIN = write_csv(with_column("größe", "1"))
LINES = write_jsonl().splitlines(keepends=True)
GOOD_CSV = to("train/train.csv", write_csv())
GOOD_JSONL = to("train/train.jsonl", write_jsonl())
BY_COLUMNS = {name: {str(n): row[name] for n, row in enumerate(ROWS)} for name in ("text", "label")}

BAD_FILES = (
    # Not text at all.
    BadFile("a workbook named .csv", {"train/train.csv": WORKBOOK}, ("train.csv must hold text; it begins like an Excel workbook",), "export its sheet as CSV in UTF-8", GOOD_CSV),
    BadFile("a workbook", {"train/train.xlsx": WORKBOOK}, ("must hold files that end with .jsonl", "train.xlsx"), "export its sheet as CSV in UTF-8", GOOD_CSV),
    BadFile("an old workbook named .csv", {"train/train.csv": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600)}, ("begins like an Excel or Word file of the old format",), "export its sheet as CSV", GOOD_CSV),
    BadFile("an OpenDocument sheet named .csv", {"train/train.csv": SHEET}, ("begins like an OpenDocument file",), "export its sheet as CSV", GOOD_CSV),
    BadFile("a Word document named .txt", {"train/train.txt": DOCUMENT}, ("begins like a Word document",), "or its text as .txt", to("train/train.txt", b"a text of a document\n" * 3 + b"and another\n" * 2 + b"\n".join(b"line %d" % n for n in range(30))), task="CausalLM"),
    BadFile("a Word document", {"train/train.docx": DOCUMENT}, ("train.docx",), "export its table as CSV", GOOD_CSV),
    BadFile("a zip archive named .csv", {"train/train.csv": write_zip({"train.csv": write_csv()})}, ("begins like a zip archive",), "unpack it", GOOD_CSV),
    BadFile("a zip archive", {"train/train.csv.zip": write_zip({"train.csv": write_csv()})}, ("train.csv.zip",), "unpack it", GOOD_CSV),
    BadFile("a tar archive named .jsonl", {"train/train.jsonl": write_tar("train.jsonl", write_jsonl())}, ("begins like a tar archive",), "unpack it", GOOD_JSONL),
    BadFile("a compressed tar archive named .jsonl.gz", {"train/train.jsonl.gz": gzip.compress(write_tar("train.jsonl", write_jsonl()))}, ("begins like a tar archive",), "unpack it", GOOD_JSONL),
    BadFile("a PDF named .txt", {"train/train.txt": b"%PDF-1.7\n"}, ("begins like a PDF",), "extract its text", to("train/train.jsonl", write_jsonl())),
    BadFile("parquet named .csv", {"train/train.csv": write_parquet()}, ("begins like a parquet file",), "rename it so that it ends with .parquet", rename(**{"train/train.csv": "train/train.parquet"})),
    BadFile("parquet named .jsonl", {"train/train.jsonl": write_parquet()}, ("begins like a parquet file",), "rename it so that it ends with .parquet", rename(**{"train/train.jsonl": "train/train.parquet"})),
    BadFile("CSV named .parquet", {"train/train.parquet": write_csv()}, ("must be a whole parquet file; it begins like text",), "give it the end of its format", rename(**{"train/train.parquet": "train/train.csv"})),
    BadFile("gzip named .csv", {"train/train.csv": gzip.compress(write_csv())}, ("begins like gzip",), "rename it so that it ends with train.csv.gz", rename(**{"train/train.csv": "train/train.csv.gz"})),
    BadFile("zstandard named .jsonl", {"train/train.jsonl": zstandard.compress(write_jsonl())}, ("begins like zstandard",), "rename it so that it ends with train.jsonl.zst", rename(**{"train/train.jsonl": "train/train.jsonl.zst"})),
    BadFile("CSV named .csv.gz", {"train/train.csv.gz": write_csv()}, ("must be compressed with gzip, as its name says; it is not",), "rename it to train.csv", rename(**{"train/train.csv.gz": "train/train.csv"})),
    BadFile("JSON lines named .jsonl.zst", {"train/train.jsonl.zst": write_jsonl()}, ("must be compressed with zstd",), "rename it to train.jsonl", rename(**{"train/train.jsonl.zst": "train/train.jsonl"})),
    BadFile("gzip that ends early", {"train/train.jsonl.gz": gzip.compress(write_jsonl())[:-20]}, ("train.jsonl.gz: Truncated compressed stream",), "upload the file again, whole", to("train/train.jsonl.gz", gzip.compress(write_jsonl()))),
    BadFile("bzip2 named .csv", {"train/train.csv": bz2.compress(write_csv())}, ("begins like bzip2",), "unpack it", GOOD_CSV),
    BadFile("xz named .csv", {"train/train.csv": lzma.compress(write_csv())}, ("begins like xz",), "unpack it", GOOD_CSV),
    BadFile("bzip2", {"train/train.csv.bz2": bz2.compress(write_csv())}, ("train.csv.bz2",), "unpack it", GOOD_CSV),
    BadFile("an Arrow file named .parquet", {"train/train.parquet": b"ARROW1\0\0" + bytes(64)}, ("begins like an Arrow or Feather file",), "write it as parquet", to("train/train.parquet", write_parquet())),
    BadFile("an Arrow file", {"train/train.arrow": b"ARROW1\0\0" + bytes(64)}, ("train.arrow",), "write it as parquet", to("train/train.parquet", write_parquet())),
    BadFile("a pickle named .jsonl", {"train/train.jsonl": pickle.dumps(ROWS, protocol=4)}, ("begins like a Python pickle",), "write the rows as .jsonl or .parquet", GOOD_JSONL),
    BadFile("a pickle", {"train/train.pkl": pickle.dumps(ROWS)}, ("train.pkl",), "write the rows as .jsonl or .parquet", GOOD_JSONL),
    BadFile("a SQLite database named .csv", {"train/train.csv": b"SQLite format 3\0" + bytes(100)}, ("begins like a SQLite database",), "export the table as CSV", GOOD_CSV),
    BadFile("a pointer of Git LFS", {"train/train.csv": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"}, ("begins like a pointer of Git LFS",), "git lfs pull", GOOD_CSV),
    BadFile("a web page saved as .csv", {"train/train.csv": b"\n<!DOCTYPE html><html><body>Sign in</body></html>"}, ("begins like a web page",), "upload the file itself", GOOD_CSV),
    BadFile("XML named .jsonl", {"train/train.jsonl": b'<?xml version="1.0"?><rows/>'}, ("begins like XML",), "write the rows as .jsonl, .csv or .parquet", GOOD_JSONL),
    BadFile("a file with another end for lines of JSON", {"train/train.ndjson": write_jsonl()}, ("train.ndjson",), "rename it so that it ends with .jsonl", rename(**{"train/train.ndjson": "train/train.jsonl"})),
    BadFile("a file without an end", {"train/part-00000": write_csv()}, ("part-00000",), "give the files the end of their format", rename(**{"train/part-00000": "train/part-00000.csv"})),
    BadFile("a backup of an editor", {"train/train.csv.bak": write_csv()}, ("train.csv.bak",), "give the files the end of their format", rename(**{"train/train.csv.bak": "train/train.csv"})),
    # Encodings and line ends.
    BadFile("a header in Latin-1", {"train/train.csv": LATIN.decode().encode("latin-1")}, ("train.csv line 1: must be UTF-8", "looks like Latin-1"), "save the file in UTF-8", recode("latin-1")),
    BadFile("rows in Latin-1", {"train/train.jsonl": write_jsonl(change(6, text="Mein Geldbeutel für Größe 7")).decode().encode("latin-1")}, ("train.jsonl line 7: must be UTF-8; byte 28 is not; it looks like Latin-1",), "save the file in UTF-8", recode("latin-1")),
    BadFile("a list in Latin-1", {"train/train.json": json.dumps(change(6, text="für 7"), ensure_ascii=False, indent=1).encode("latin-1")}, ("train.json line 27: must be UTF-8; it looks like Latin-1",), "save the file in UTF-8", recode("latin-1")),
    BadFile("UTF-16 with its mark", {"train/train.csv": write_csv().decode().encode("utf-16")}, ("train.csv line 1: must be UTF-8; it begins like UTF-16",), "iconv -f UTF-16 -t UTF-8", recode("utf-16")),
    BadFile("UTF-16 without its mark", {"train/train.csv": write_csv().decode().encode("utf-16-le")}, ("begins like UTF-16LE",), "iconv -f UTF-16LE -t UTF-8", recode("utf-16-le")),
    BadFile("UTF-16 the other way round", {"train/train.jsonl": write_jsonl().decode().encode("utf-16-be")}, ("begins like UTF-16BE",), "save the file in UTF-8", recode("utf-16-be")),
    BadFile("UTF-32", {"train/train.jsonl": write_jsonl().decode().encode("utf-32")}, ("begins like UTF-32",), "save the file in UTF-8", recode("utf-32")),
    BadFile("lines that end as on old Macintoshes", {"train/train.csv": write_csv(line_end="\r")}, ("must end its lines with \\n or \\r\\n; they end with \\r alone",), "line ends of Unix or Windows", edit(b"\r", b"\n")),
    BadFile("rows in Shift-JIS", {"train/train.csv": write_csv([row | {"text": f"カードを失くしました {n}"} for n, row in enumerate(ROWS)]).decode().encode("shift_jis")}, ("train.csv line 2: must be UTF-8; byte 1 is not;",), "save the file in UTF-8", recode("shift_jis")),
    BadFile("zeros within a line", {"train/train.csv": write_csv().replace(b"stolen", b"sto\0len", 1)}, ("train.csv line 2: must not hold zeros (NUL)",), "write the file again", GOOD_CSV),
    BadFile("zeros at the end", {"train/train.csv": write_csv() + bytes(4096)}, ("train.csv line 62: must not hold zeros (NUL)",), "zeros stand where it was cut off", GOOD_CSV),
    BadFile("a zero spelled in JSON", {"train/train.jsonl": write_jsonl(change(3, text="a\0b"))}, ("train.jsonl line 4: text must not hold zeros (NUL); character 2 is one",), "correct the rows", GOOD_JSONL),
    # Compressed twice, or in part.
    BadFile("gzip of gzip", {"train/train.csv.gz": gzip.compress(gzip.compress(write_csv()))}, ("train.csv.gz must hold text; it begins like gzip",), "unpack it once: it is compressed twice", to("train/train.csv.gz", gzip.compress(write_csv()))),
    BadFile("gzip of zstandard", {"train/train.csv.gz": gzip.compress(zstandard.compress(write_csv()))}, ("it begins like zstandard",), "unpack it once", to("train/train.csv.zst", zstandard.compress(write_csv()))),
    BadFile("gzip of gzip by its name", {"train/train.csv.gz.gz": gzip.compress(gzip.compress(write_csv()))}, ("train.csv.gz.gz",), "unpack them once: they are compressed twice", to("train/train.csv.gz", gzip.compress(write_csv()))),
    BadFile("gzip of parquet named .csv.gz", {"train/train.csv.gz": gzip.compress(write_parquet())}, ("it begins like a parquet file",), "unpack it and upload the .parquet file as it is", to("train/train.parquet", write_parquet())),
    BadFile("zstandard that ends early", {"train/train.jsonl.zst": zstandard.compress(write_jsonl())[:-30]}, ("train.jsonl.zst: Truncated compressed stream",), "upload the file again, whole", to("train/train.jsonl.zst", zstandard.compress(write_jsonl()))),
    BadFile("gzip with another checksum", {"train/train.jsonl.gz": gzip.compress(write_jsonl())[:-8] + bytes(8)}, ("incorrect data check",), "upload the file again, whole", to("train/train.jsonl.gz", gzip.compress(write_jsonl()))),
    # Headers and separators.
    BadFile("a comment above the header", {"train/train.csv": b"# exported in 2024\n" + write_csv()}, ("train.csv line 1: must be the header", "it is \"# exported in 2024\" alone, and the next row has 2 fields"), "remove what stands above the header", GOOD_CSV),
    BadFile("a title above the header", {"train/train.csv": b"Export of tickets,\n" + write_csv()}, ("it is \"Export of tickets\" alone",), "remove what stands above the header", GOOD_CSV),
    BadFile("another separator", {"train/train.csv": write_csv(separator="^")}, ("train.csv must be separated by commas, semicolons, tabs or vertical bars; its fields seem to be by '^'",), "write the file with one of those", GOOD_CSV),
    BadFile("columns of a fixed width", {"train/train.csv": "".join(f"{re.sub('[,;]', '', row['text']):<60}{row['label']}\n" for row in [{"text": "text", "label": "label"}, *ROWS]).encode()}, ("train.csv must have columns for text, label",), "separated by commas, semicolons, tabs or vertical bars", GOOD_CSV),
    BadFile("single quotes", {"train/train.csv": b"text,label\n" + "".join(f"'{row['text']}','{row['label']}'\n" for row in change(0, text="one, two")).encode()}, ("train.csv line 2: must have 2 fields as the header has, not 3; quotes must be double quotes (\"), not '",), "correct the rows", GOOD_CSV),
    BadFile("no header", {"train/train.csv": write_csv(with_header=False)}, ("train.csv line 1: must be a header", "it looks like a row: \"My card was stolen, number 0.", "lost_card"), "names the columns, such as text,label", to("train/train.csv", b"text,label\n" + write_csv(with_header=False))),
    BadFile("no header, separated by tabs", {"train/train.tsv": write_csv(separator="\t", with_header=False)}, ("train.tsv line 1: must be a header",), "names the columns, such as text,label", to("train/train.tsv", b"text\tlabel\n" + write_csv(separator="\t", with_header=False))),
    BadFile("no header, numbers first", {"train/train.csv": write_csv([{"id": n, **row} for n, row in enumerate(ROWS)], with_header=False)}, ("must be a header", "it looks like a row: 0"), "names the columns", to("train/train.csv", write_csv())),
    BadFile("a column twice", {"train/train.csv": write_csv().replace(b"text,label\n", b"text,label,text\n").replace(b"\n", b",x\n").replace(b"text,x\n", b"text\n", 1)}, ("train.csv line 1: must name each column once; text stands in columns 1, 3",), "rename or remove one of them", edit(b"text,label,text\n", b"text,label,note\n")),
    BadFile("a header without names", {"train/train.csv": b",\n" + write_csv(with_header=False)}, ("must be a header of column names; all are empty",), "put a header into the first line", edit(b',\n"My', b'text,label\n"My')),
    BadFile("unquoted commas", {"train/train.csv": b"text,label\n" + b"".join(f"a, b {n},{'xy'[n % 2]}\n".encode() for n in range(40))}, ("train.csv line 2: must have 2 fields as the header has, not 3; quote fields that hold commas",), "correct the rows", to("train/train.csv", write_csv([{"text": f"a, b {n}", "label": "xy"[n % 2]} for n in range(40)]))),
    BadFile("a row that lacks a field", {"train/train.csv": write_csv() + b"no label here\n"}, ("train.csv line 62: must have 2 fields as the header has, not 1",), "correct the rows", edit(b"no label here\n", b"no label here,lost_card\n")),
    BadFile("quotes escaped by a backslash", {"train/train.csv": write_csv() + b'"say \\"hi\\" to 1",lost_card\n'}, ("train.csv line 62: must be a row of CSV",), "write a double quote inside of it twice", edit(b'\\"', b'""')),
    BadFile("a quote that is not closed", {"train/train.csv": write_csv() + b'"never closed,lost_card\n'}, ("train.csv line 62: must be a row of CSV; unexpected end of data",), "quote the field", edit(b'"never closed,', b'"closed",')),
    BadFile("fields in single quotes", {"train/train.csv": b"'text','label'\n'a','x'\n'b','y'\n"}, ("train.csv must have columns for text, label; it has 'text', 'label'",), "name the columns", GOOD_CSV),
    BadFile("columns with other names", {"train/train.csv": write_csv([{"utterance": row["text"], "klasse": row["label"]} for row in ROWS])}, ("train.csv must have columns for text, label; it has utterance, klasse",), "name the columns in spec.data[0].columns", lambda files: files, mended_columns={"text": "utterance", "label": "klasse"}),
    BadFile("a misspelt column", {"train/train.csv": write_csv()}, ("spec.data[0].columns.text (txet) must be a column of train.csv, which has text, label; did you mean text?",), "correct the column's name", lambda files: files, columns={"text": "txet"}, mended_columns={"text": "text"}),
    BadFile("a column for two roles", {"train/train.csv": write_csv()}, ("spec.data[0].columns must name a column for one role; text, label are text",), "correct the column's name", lambda files: files, columns={"text": "text", "label": "text"}, mended_columns={"text": "text", "label": "label"}),
    # JSON.
    BadFile("Python's words in a list", {"train/train.json": repr(ROWS).encode()}, ("train.json line 1: must be JSON; a single quote at column 3",), "write the rows with json.dumps", to("train/train.json", json.dumps(ROWS).encode())),
    BadFile("Python's words in lines", {"train/train.jsonl": "".join(f"{row}\n" for row in ROWS).encode()}, ("train.jsonl line 1: must be one JSON object", "must stand in double quotes, as json.dumps writes them"), "correct the rows", GOOD_JSONL),
    BadFile("a list that ends with a comma", {"train/train.json": json.dumps(ROWS).encode()[:-1] + b",]"}, ("nothing follows the comma before ]",), "remove that comma", edit(b",]", b"]")),
    BadFile("a list that is cut short", {"train/train.json": json.dumps(ROWS).encode()[:-30]}, ("must go on; the file ends",), "upload the file again, whole", to("train/train.json", json.dumps(ROWS).encode())),
    BadFile("a list that is not closed", {"train/train.json": json.dumps(ROWS).encode()[:-1]}, ("train.json line 1: must go on; the file ends",), "upload the file again, whole", to("train/train.json", json.dumps(ROWS).encode())),
    BadFile("two lists", {"train/train.json": json.dumps(ROWS[:30]).encode() + b"\n" + json.dumps(ROWS[30:]).encode()}, ("train.json line 2: must end with its list; more follows",), "write one list of all rows", to("train/train.json", json.dumps(ROWS).encode())),
    BadFile("rows without names in lines", {"train/train.jsonl": "".join(json.dumps(list(row.values())) + "\n" for row in ROWS).encode()}, ("train.jsonl line 2: must end with its list",), "one object a line", GOOD_JSONL),
    BadFile("rows without names in a list", {"train/train.json": json.dumps([list(row.values()) for row in ROWS]).encode()}, ("train.json row 1: must be a JSON object with named columns, not list",), "correct the rows", GOOD_JSONL),
    BadFile("a table by columns, as pandas writes it", {"train/train.json": json.dumps(BY_COLUMNS).encode()}, ("train.json must hold rows; it holds columns (text, label), as pandas writes them",), 'orient="records", lines=True', GOOD_JSONL),
    BadFile("lists by columns", {"train/train.json": json.dumps({name: list(values.values()) for name, values in BY_COLUMNS.items()}).encode()}, ("must hold rows; it holds columns (text, label)",), 'orient="records", lines=True', GOOD_JSONL),
    BadFile("a table split into columns and data", {"train/train.json": json.dumps({"columns": ["text", "label"], "index": [0], "data": [["a", "b"]]}).encode()}, ("must hold rows; it holds columns (columns, index, data)",), 'orient="records", lines=True', GOOD_JSONL),
    BadFile("the splits in one document", {"train/data.json": json.dumps({"train": ROWS[:50], "test": ROWS[50:]}).encode()}, ("data.json must hold one list of rows; it has several: train, test",), "write each list into a file of its own", lambda _: {"train/train.json": json.dumps(ROWS[:50]).encode(), "test/test.json": json.dumps(ROWS[50:]).encode()}),
    BadFile("a broken line", {"train/train.jsonl": b"".join([*LINES[:16], b'{"text": "x", "label": \n', *LINES[17:]])}, ("train.jsonl line 17: must be one JSON object; Expecting value at column 23",), "correct the rows", GOOD_JSONL),
    BadFile("a comma behind the last field", {"train/train.jsonl": write_jsonl().replace(b'"}', b'",}', 1)}, ("train.jsonl line 1: must be one JSON object", "(no comma must stand before it)"), "correct the rows", GOOD_JSONL),
    BadFile("a comment above lines of JSON", {"train/train.jsonl": b"// rows\n" + write_jsonl()}, ("train.jsonl line 1: must be one JSON object", "(JSON has no comments; remove the line)"), "correct the rows", GOOD_JSONL),
    BadFile("a comment above a list", {"train/train.json": b"/* rows */\n" + json.dumps(ROWS).encode()}, ("train.json line 1: must be JSON; a comment at column 1",), "remove it: JSON has none", to("train/train.json", json.dumps(ROWS).encode())),
    BadFile("NaN for a text", {"train/train.jsonl": b'{"text": NaN, "label": "lost_card"}\n' + write_jsonl()}, ("train.jsonl line 1: text must be a text, not NaN",), "correct the rows", GOOD_JSONL),
    BadFile("NaN for a label", {"train/train.jsonl": b'{"text": "x", "label": NaN}\n' + write_jsonl()}, ("train.jsonl line 1: label (NaN) must be a text or a whole number",), "write each class as a word", GOOD_JSONL),
    BadFile("null for a label", {"train/train.jsonl": write_jsonl(change(3, label=None))}, ("train.jsonl line 4: label is missing",), "correct the rows", GOOD_JSONL),
    BadFile("a list of labels", {"train/train.jsonl": write_jsonl(change(3, label=["lost_card"]))}, ("train.jsonl line 4: label must be a text or a whole number, not list",), "correct the rows", GOOD_JSONL),
    BadFile("ratings in JSON", {"train/train.jsonl": write_jsonl([row | {"label": n % 4 / 2} for n, row in enumerate(ROWS)])}, ("train.jsonl line 2: label (0.5) must be a text or a whole number",), "round such labels, or write each class as a word", to("train/train.jsonl", write_jsonl([row | {"label": f"rated {n % 4 / 2}"} for n, row in enumerate(ROWS)]))),
    BadFile("ratings in CSV", {"train/train.csv": write_csv([row | {"label": n % 4 / 2} for n, row in enumerate(ROWS)])}, ("train.csv line 3: label (0.5) must be a text or a whole number",), "round such labels, or write each class as a word", to("train/train.csv", write_csv([row | {"label": f"rated {n % 4 / 2}"} for n, row in enumerate(ROWS)]))),
    BadFile("ratings with a decimal comma", {"train/train.csv": write_csv([row | {"label": f"{n % 3},5"} for n, row in enumerate(ROWS)], separator=";")}, ("train.csv line 2: label (0,5) must be a text or a whole number",), "round such labels, or write each class as a word", GOOD_CSV),
    BadFile("an empty text", {"train/train.jsonl": write_jsonl(change(5, text="  \n"))}, ("train.jsonl line 6: text must not be empty",), "correct the rows", GOOD_JSONL),
    BadFile("half of a surrogate pair", {"train/train.jsonl": b'{"text": "a \\ud83d", "label": "lost_card"}\n' + write_jsonl()}, ("text must be valid Unicode; character 3 is half of a pair",), "correct the rows", GOOD_JSONL),
    # Parquet.
    BadFile("parquet cut short", {"train/train.parquet": write_parquet()[:-8]}, ("train.parquet must be a whole parquet file",), "upload the file again", to("train/train.parquet", write_parquet())),
    BadFile("compressed parquet", {"train/train.parquet.gz": gzip.compress(write_parquet())}, ("must not be compressed from outside",), "upload the .parquet file as it is", to("train/train.parquet", write_parquet())),
    BadFile("time stamps for texts", {"train/train.parquet": write_parquet(pyarrow.table({"text": pyarrow.array(range(60), pyarrow.timestamp("s")), "label": ["a", "b"] * 30}))}, ("train.parquet row 1: text must be a text, not datetime",), "correct the rows", to("train/train.parquet", write_parquet())),
    BadFile("decimals that are not whole", {"train/train.parquet": write_parquet(pyarrow.table({"text": [row["text"] for row in ROWS], "label": pyarrow.array([Decimal(n % 3) / 2 for n in range(60)], pyarrow.decimal128(5, 2))}))}, ("train.parquet row 2: label (0.50) must be a text or a whole number",), "round such labels", to("train/train.parquet", write_parquet())),
    BadFile("dates for labels", {"train/train.parquet": write_parquet(pyarrow.table({"text": [row["text"] for row in ROWS], "label": pyarrow.array(range(60), pyarrow.date32())}))}, ("train.parquet row 1: label must be a text or a whole number, not date",), "correct the rows", to("train/train.parquet", write_parquet())),
    BadFile("a time stamp after the year 9999", {"train/train.parquet": write_parquet(pyarrow.table({"text": [row["text"] for row in ROWS], "label": [row["label"] for row in ROWS], "when": pyarrow.array([2**62] * 60, pyarrow.timestamp("us"))}))}, ("train.parquet rows 1 to 60: column when must hold texts in UTF-8 and values Python can hold",), "or leave the column out", to("train/train.parquet", write_parquet())),
    BadFile("parquet without a row", {"train/train.parquet": write_parquet(pyarrow.table({"text": pyarrow.array([], pyarrow.string()), "label": pyarrow.array([], pyarrow.string())}))}, ("train.parquet must have at least one row; it is empty",), "give a file with rows", to("train/train.parquet", write_parquet())),
    BadFile("bytes for texts", {"train/train.parquet": write_parquet(pyarrow.table({"text": [row["text"].encode() for row in ROWS], "label": [row["label"] for row in ROWS]}))}, ("train.parquet row 1: text must be a text, not bytes",), "correct the rows", to("train/train.parquet", write_parquet())),
    BadFile("a structure for a text", {"train/train.parquet": write_parquet([row | {"text": {"en": row["text"]}} for row in ROWS])}, ("train.parquet row 1: text must be a text, not dict",), "correct the rows", to("train/train.parquet", write_parquet())),
    BadFile("a column twice in parquet", {"train/train.parquet": write_parquet(pyarrow.table([pyarrow.array(["a", "b"])] * 2, names=["text", "text"]))}, ("must name each column once; text stands there more than once",), "rename or remove one of them", to("train/train.parquet", write_parquet())),
    # Several files.
    BadFile("two schemas in a folder", {"train/part1.jsonl": write_jsonl([{"text": row["text"], "category": row["label"]} for row in ROWS]), "train/part2.csv": write_csv([{"sentence": row["text"], "label": row["label"]} for row in ROWS])}, ("part2.csv must have part1.jsonl's columns text, category; it has sentence, label",), "rename the columns in part2.csv", lambda files: {"train/part1.jsonl": files["train/part1.jsonl"], "train/part2.csv": write_csv([{"text": row["text"], "category": row["label"]} for row in make_rows(90)[60:]])}),
    BadFile("a test file with other names", {"train/train.jsonl": write_jsonl(), "test/test.csv": write_csv([{"utterance": row["text"], "intent": row["label"]} for row in make_rows(90)[60:]])}, ("test.csv must have train.jsonl's columns text, label; it has utterance, intent",), "rename the columns in test.csv", edit(b"utterance,intent", b"text,label")),
    BadFile("a test file without labels", {"train/train.jsonl": write_jsonl(), "test/test.csv": write_csv([{"text": row["text"]} for row in make_rows(90)[60:]])}, ("test.csv must have train.jsonl's columns text, label; it has text",), "rename the columns in test.csv", drop("test/test.csv")),
    BadFile("a test file with a header only", {"train/train.jsonl": write_jsonl(), "test/test.csv": b"text,label\n"}, ("test.csv must have at least one row; it has a header only",), "or leave spec.data[0].test out", drop("test/test.csv")),
    BadFile("an empty file", {"train/train.jsonl": b""}, ("train.jsonl must have at least one row; it is empty",), "give a file with rows", GOOD_JSONL),
    BadFile("an empty list", {"train/train.json": b"[]"}, ("train.json must have at least one row; it is empty",), "give a file with rows", GOOD_JSONL),
    BadFile("parts without a row", {"train/part-0.csv": b"", "train/part-1.csv": b"text,label\n"}, ("part-1.csv must have at least one row; it has a header only",), "give a file with rows", GOOD_CSV),
    BadFile("only files that are hidden", {"train/.ipynb_checkpoints/train.jsonl": write_jsonl()}, ("must hold files that end with .jsonl", ".ipynb_checkpoints/train.jsonl"), "give the files the end of their format", GOOD_JSONL),
    BadFile("a column that comes late", {"train/train.jsonl": write_jsonl([{"instruction": f"name {n}", "output": str(n)} | ({"input": "as a word"} if n > 105 else {}) for n in range(110)])}, ("train.jsonl line 107: input must be a column of the first 100 rows too, to be read as input",), "correct the rows", to("train/train.jsonl", write_jsonl([{"instruction": f"name {n}", "output": str(n), "input": "as a word" if n > 105 else ""} for n in range(110)])), task="InstructionTuning"),
    # Labels.
    BadFile("one label", {"train/train.jsonl": write_jsonl([row | {"label": "x"} for row in ROWS])}, ("train.jsonl must have at least two different labels; every row has x",), "add rows of another class", GOOD_JSONL),
    BadFile("a label of its own for each row", {"train/train.jsonl": write_jsonl([row | {"label": f"c{n}"} for n, row in enumerate(ROWS)])}, ("spec.split.validation (0.1) must leave a row in every part", "each of the 60 labels keeps a row for training"), "give more rows, another share", GOOD_JSONL),
    BadFile("texts for labels", {"train/train.jsonl": write_jsonl([row | {"label": row["text"] * 9} for row in ROWS])}, ("must have at most 256 characters",), "name the column of the labels", GOOD_JSONL),
)  # fmt: skip
"""One thing wrong with each."""

ODD_FILES = (
    OddFile("semicolons in .csv", {"train/train.csv": write_csv(separator=";")}, ("train.csv is separated by semicolons, not by commas; it is read so",)),
    OddFile("tabs in .csv", {"train/train.csv": write_csv(separator="\t")}, ("is separated by tabs, not by commas",)),
    OddFile("vertical bars in .csv", {"train/train.csv": write_csv(separator="|")}, ("is separated by vertical bars",)),
    OddFile("commas in .tsv", {"train/train.tsv": write_csv()}, ("train.tsv is separated by commas, not by tabs",)),
    OddFile("Excel's line for the separator", {"train/train.csv": b"\xef\xbb\xbfsep=;\r\n" + write_csv(separator=";", line_end="\r\n")}, ("is separated by semicolons",)),
    OddFile("Excel's line for another separator than there is", {"train/train.csv": b"sep=;\r\n" + write_csv(line_end="\r\n")}),
    OddFile("a mark of UTF-8 before each part of a file", {"train/train.csv": b"\xef\xbb\xbf" + write_csv(ROWS[:30]) + b"\xef\xbb\xbf" + write_csv(ROWS[30:])}, ("train.csv: lines begin with a mark of UTF-8, as in files put together; left out", "train.csv: 1 lines repeat the header")),
    OddFile("a mark of UTF-8 within lines of JSON", {"train/train.jsonl": write_jsonl(ROWS[:30]) + b"\xef\xbb\xbf" + write_jsonl(ROWS[30:])}, ("train.jsonl: lines begin with a mark of UTF-8",)),
    OddFile("two marks of UTF-8", {"train/train.csv": b"\xef\xbb\xbf\xef\xbb\xbf" + write_csv()}),
    OddFile("blanks that nobody sees around names", {"train/train.csv": write_csv().replace(b"text,label", "\u200btext\u00a0,\ufefflabel".encode(), 1)}),
    OddFile("a column with the name of another in capitals", {"train/train.csv": write_csv(with_column("Label", 7))}, ("columns label, Label differ in case only: the first is read as label",)),
    OddFile("a table of Markdown", {"train/train.csv": ("| text | label |\n|---|:-:|\n" + "".join(f"| {row['text']} | {row['label']} |\n" for row in ROWS)).encode()}, ("is separated by vertical bars", "the line of dashes below the header, as in tables of Markdown, is left out")),
    OddFile("gzip of several parts", {"train/train.jsonl.gz": gzip.compress(write_jsonl(ROWS[:30])) + gzip.compress(write_jsonl(ROWS[30:]))}),
    OddFile("zstandard of several parts", {"train/train.jsonl.zst": zstandard.compress(write_jsonl(ROWS[:30])) + zstandard.compress(write_jsonl(ROWS[30:]))}),
    OddFile("texts as views", {"train/train.parquet": write_parquet(pyarrow.table({"text": pyarrow.array([row["text"] for row in ROWS], pyarrow.string_view()), "label": [row["label"] for row in ROWS]}))}),
    OddFile("whole decimals", {"train/train.parquet": write_parquet(pyarrow.table({"text": [row["text"] for row in ROWS], "label": pyarrow.array([Decimal(n % 3) for n in range(60)], pyarrow.decimal128(5, 0))}))}),
    OddFile("a mark of UTF-8 before a header", {"train/train.csv": b"\xef\xbb\xbf" + write_csv(line_end="\r\n")}),
    OddFile("a mark of UTF-8 before lines", {"train/train.jsonl": b"\xef\xbb\xbf" + write_jsonl()}),
    OddFile("a mark of UTF-8 before a list", {"train/train.json": b"\xef\xbb\xbf" + json.dumps(ROWS).encode()}),
    OddFile("texts over several lines", {"train/train.csv": write_csv([row | {"text": row["text"].replace(" ", "\n", 1)} for row in ROWS], line_end="\r\n")}),
    OddFile("the index of pandas in CSV", {"train/train.csv": write_csv([{"": n, **row} for n, row in enumerate(ROWS)])}),
    OddFile("the index of pandas in parquet", {"train/train.parquet": write_parquet([row | {"__index_level_0__": f"row {n}"} for n, row in enumerate(ROWS)])}),
    OddFile("empty columns at the end, as of sheets", {"train/train.csv": write_csv().replace(b"\n", b",,\n")}),
    OddFile("empty rows at the end, as of sheets", {"train/train.csv": write_csv() + b",\n,\n\n"}),
    OddFile("a header within the file", {"train/train.csv": write_csv(ROWS[:30]) + write_csv(ROWS[30:])}, ("train.csv: 1 lines repeat the header, as in files put together; left out",)),
    OddFile("lines in .json", {"train/train.json": write_jsonl()}, ("train.json holds one object a line, as .jsonl files do; it is read so",)),
    OddFile("a list in .jsonl", {"train/train.jsonl": json.dumps(ROWS).encode()}, ("train.jsonl holds a JSON document",)),
    OddFile("a list in .jsonl.gz", {"train/train.jsonl.gz": gzip.compress(json.dumps(ROWS).encode())}, ("train.jsonl.gz holds a JSON document",)),
    OddFile("objects over several lines", {"train/train.jsonl": "\n".join(json.dumps(row, indent=2) for row in ROWS).encode()}, ("train.jsonl holds a JSON document",)),
    OddFile("objects one after another", {"train/train.json": "".join(json.dumps(row) for row in ROWS).encode()}),
    OddFile("a list in an object", {"train/train.json": json.dumps({"data": ROWS}).encode()}, ("train.json: the rows are the list under data; the rest is left out",)),
    OddFile("a table with its schema, as pandas writes it", {"train/train.json": json.dumps({"schema": {"fields": []}, "data": ROWS}).encode()}, ("the rows are the list under data",)),
    OddFile("null in cells of parquet", {"train/train.parquet": write_parquet([row | {"note": None} for row in ROWS])}),
    OddFile("categories of pandas", {"train/train.parquet": write_parquet(pyarrow.table({"text": [row["text"] for row in ROWS], "label": pyarrow.array([row["label"] for row in ROWS]).dictionary_encode()}))}),
    OddFile("large texts and views", {"train/train.parquet": write_parquet(pyarrow.table({"text": pyarrow.array([row["text"] for row in ROWS], pyarrow.large_string()), "label": pyarrow.array([n % 3 for n in range(60)], pyarrow.int8())}))}),
    OddFile("whole floats in JSON", {"train/train.jsonl": write_jsonl([row | {"label": float(n % 2)} for n, row in enumerate(ROWS)])}),
    OddFile("whole floats in CSV", {"train/train.csv": write_csv([row | {"label": float(n % 2)} for n, row in enumerate(ROWS)])}),
    OddFile("whole floats in parquet", {"train/train.parquet": write_parquet([row | {"label": float(n % 2)} for n, row in enumerate(ROWS)])}),
    OddFile("booleans in JSON", {"train/train.jsonl": write_jsonl([row | {"label": n % 2 == 0} for n, row in enumerate(ROWS)])}),
    OddFile("booleans in CSV", {"train/train.csv": write_csv([row | {"label": n % 2 == 0} for n, row in enumerate(ROWS)])}),
    OddFile("booleans in JSON beside those in CSV", {"train/train.jsonl": write_jsonl([row | {"label": n % 2 == 0} for n, row in enumerate(ROWS)]), "test/test.csv": write_csv([row | {"label": n % 2 == 0} for n, row in enumerate(make_rows(90)[60:])])}, want_rows=90),
    OddFile("a label that stands for no value", {"train/train.csv": write_csv([*ROWS, {"text": "One more question", "label": "nan"}])}, ("label nan (1 rows) looks like a missing value",), 61),
    OddFile("labels that differ in case", {"train/train.jsonl": write_jsonl(change(4, label="Charged_Twice"))}, ("labels that differ only in case, blanks or the like", "Charged_Twice (1 rows)", "charged_twice (17 rows)")),
    OddFile("columns with texts that no role takes", {"train/train.jsonl": write_jsonl(with_column("answer", "a text that is lost"))}, ("columns with texts that are not read: answer; text is text, label is label",)),
    OddFile("a folder hidden by its name", {"train/a/part1.jsonl": write_jsonl(), "train/a/.ipynb_checkpoints/old.jsonl": write_jsonl(ROWS[:3])}, ("1 files are left out whose path has a segment that begins with . _ ~ or #, such as a/.ipynb_checkpoints/old.jsonl",)),
    OddFile("a folder of Spark", {"train/_SUCCESS": b"", "train/._SUCCESS.crc": b"crc", "train/.part-00000.json.crc": b"crc", "train/part-00000-9f.c000.json": write_jsonl(), "train/part-00001-9f.c000.json": b""}, ("part-00000-9f.c000.json holds one object a line", "part-00001-9f.c000.json has no rows")),
    OddFile("leftovers of programs", {"train/train.csv": write_csv(), "train/~$train.csv": b"x", "train/.train.csv.swp": b"x", "train/.DS_Store": b"x", "train/Thumbs.db": b"x", "train/#train.csv#": b"x", "train/__MACOSX/._train.csv": b"x"}, ("1 files of other formats are left out, such as Thumbs.db", "2 files are left out whose path has a segment")),
)  # fmt: skip
"""One thing odd with each."""

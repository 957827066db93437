"""What a file is by its first bytes, whatever its name says: a workbook named .csv can't be mended by its rows."""

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from finetune_api.errors import DataError

_HEAD_BYTES = 2048
"""As many as are looked at: a tar archive is known by bytes 257 to 262."""
_TAR_MARK = slice(257, 262)
_EXPORT = "export its sheet as CSV in UTF-8 (in Excel: Save As, CSV UTF-8) and upload that."
_UNPACK = "unpack it and upload the files in it, each by itself or as .gz or .zst."
ENCODE = "save the file in UTF-8 (in Excel: Save As, CSV UTF-8)."
_CONVERT = "save the file in UTF-8 (in Excel: Save As, CSV UTF-8; elsewhere: iconv -f {encoding} -t UTF-8)."

_BINARY: tuple[tuple[bytes, str, str], ...] = (
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Excel or Word file of the old format (.xls, .doc)", _EXPORT),
    (b"%PDF", "a PDF document", "extract its text and upload that as .txt or .jsonl."),
    (b"PAR1", "a parquet file", "rename it so that it ends with .parquet."),
    (b"ARROW1", "an Arrow or Feather file", "write it as parquet: pandas.read_feather(…).to_parquet(…)."),
    (b"Obj\x01", "an Avro file", "write it as parquet or .jsonl."),
    (b"SQLite format 3\x00", "a SQLite database", "export the table as CSV."),
    (b"\x1f\x8b", "gzip", "rename it so that it ends with {name}.gz."),
    (b"\x28\xb5\x2f\xfd", "zstandard", "rename it so that it ends with {name}.zst."),
    (b"BZh91AY&SY", "bzip2", "unpack it, and upload it as it is or as .gz."),
    (b"\xfd7zXZ\x00", "xz", "unpack it, and upload it as it is or as .gz."),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (b"Rar!", "a RAR archive", _UNPACK),
    (b"{\\rtf", "a rich text document", "save it as plain text in UTF-8."),
    (b"\x80\x04\x95", "a Python pickle", "write the rows as .jsonl or .parquet: a pickle is never loaded."),
    (b"\x80\x05\x95", "a Python pickle", "write the rows as .jsonl or .parquet: a pickle is never loaded."),
)
_PAGES: tuple[tuple[bytes, str, str], ...] = (
    (b"<!doctype html", "a web page", "upload the file itself: a page was saved in its place."),
    (b"<html", "a web page", "upload the file itself: a page was saved in its place."),
    (b"<?xml", "XML", "write the rows as .jsonl, .csv or .parquet."),
)
"""In lower case."""
_POINTER = (b"version https://git-lfs.github.com/", "a pointer of Git LFS, not the file", "fetch it with git lfs pull.")
_COMPRESSED = (".gz", ".zst")
_REPACKED = {
    "a parquet file": "unpack it and upload the .parquet file as it is.",
    **dict.fromkeys(("gzip", "zstandard"), "unpack it once: it is compressed twice."),
}
"""What to do about what lies in a compressed file."""
_MARKS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}


def check_text(head: bytes, name: str) -> None:
    """Check that a file which should hold text can.

    Args:
        head: the file's first bytes, after decompression.
        name: the file's name as the user knows it.

    Raises:
        DataError: it begins like something else; the message says like what.
    """
    head = head[:_HEAD_BYTES]
    # A line of plain text may be one of a page.
    found = _find_kind(head, (_POINTER,) if ".txt" in name.lower() else (_POINTER, *_PAGES))
    if found is not None:
        kind, remedy = found
        if name.lower().endswith(_COMPRESSED) and kind in _REPACKED:
            remedy = _REPACKED[kind]
        raise DataError(f"{name} must hold text; it begins like {kind}", remedy.format(name=name))
    encoding = _find_encoding(head)
    if encoding is not None:
        raise DataError(f"{name} line 1: must be UTF-8; it begins like {encoding}", _CONVERT.format(encoding=encoding))
    if b"\r" in head and b"\n" not in head and head.count(b"\r") > 1:
        raise DataError(
            f"{name} must end its lines with \\n or \\r\\n; they end with \\r alone",
            "save it with the line ends of Unix or Windows.",
        )


def check_parquet(head: bytes, name: str) -> None:
    """Check that a file begins as parquet files do.

    Raises:
        DataError: it begins like something else.
    """
    if head[:4] == b"PAR1":
        return
    if head[:4] == b"PARE":
        raise DataError(f"{name} must be a parquet file that is not encrypted", "write it without encryption.")
    found = _find_kind(head, (_POINTER, *_PAGES))
    if found is not None:
        raise DataError(f"{name} must be a parquet file; it begins like {found[0]}", found[1].format(name=name))
    is_text = bool(head) and b"\x00" not in head
    guess = "; it begins like text" if is_text else ""
    remedy = "give it the end of its format, such as .csv or .jsonl." if is_text else "upload the file again."
    raise DataError(f"{name} must be a whole parquet file{guess}", remedy)


def _find_kind(head: bytes, pages: Iterable[tuple[bytes, str, str]]) -> tuple[str, str] | None:
    if head[:4] == b"PK\x03\x04":
        return _find_zipped(head)
    if head[_TAR_MARK] == b"ustar":
        return "a tar archive", _UNPACK
    for mark, kind, remedy in _BINARY:
        if head.startswith(mark):
            return kind, remedy
    page = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return next(((kind, remedy) for mark, kind, remedy in pages if page.startswith(mark)), None)


def _find_zipped(head: bytes) -> tuple[str, str]:
    """Tell what a zip archive holds by the names that come first in it."""
    if b"xl/" in head or (b"[Content_Types].xml" in head and b"word/" not in head):
        return "an Excel workbook (.xlsx)", _EXPORT
    if b"word/" in head:
        return "a Word document (.docx)", "export its table as CSV in UTF-8, or its text as .txt, and upload that."
    if b"mimetypeapplication/vnd.oasis.opendocument" in head:
        return "an OpenDocument file (.ods, .odt)", "export its sheet as CSV in UTF-8 and upload that."
    return "a zip archive", _UNPACK


def _find_encoding(head: bytes) -> str | None:
    """Tell a text in UTF-16 or UTF-32 by its mark, or by the zeros that letters have there."""
    if head[:4] in (b"\xff\xfe\x00\x00", b"\x00\x00\xfe\xff"):
        return "UTF-32"
    marked = next((encoding for mark, encoding in _MARKS.items() if head.startswith(mark)), None)
    if marked is not None:
        return marked
    zeros = head.count(b"\x00")
    if not zeros or zeros * 4 < len(head):
        return None
    if zeros * 8 > len(head) * 5:
        return "UTF-32"
    return "UTF-16LE" if head[1::2].count(b"\x00") >= head[::2].count(b"\x00") else "UTF-16BE"


_LONG_FOREIGN = re.compile(rb"[\x80-\xff]{4}")
"""Letters of Latin scripts beyond ASCII stand alone or in twos; those of others stand side by side."""


def guess_encoding(raw: bytes) -> str:
    """Name the encoding a line that is not UTF-8 is most likely in, for a message."""
    if _LONG_FOREIGN.search(raw):
        return ""
    try:
        raw.decode("cp1252")
    except UnicodeDecodeError:
        return ""
    return "; it looks like Latin-1 (Windows-1252)"


_UNREAD: dict[str, str] = {
    **dict.fromkeys((".xlsx", ".xls", ".xlsm", ".xlsb", ".ods", ".numbers"), _EXPORT),
    **dict.fromkeys((".doc", ".docx", ".odt", ".rtf", ".pdf"), "export its table as CSV, or its text as .txt."),
    **dict.fromkeys((".zip", ".tar", ".tgz", ".7z", ".rar", ".bz2", ".xz"), _UNPACK),
    **dict.fromkeys((".arrow", ".feather", ".orc", ".avro"), "write it as parquet."),
    **dict.fromkeys((".pkl", ".pickle", ".pt", ".npy"), "write the rows as .jsonl or .parquet: none is unpickled."),
    **dict.fromkeys((".db", ".sqlite", ".sqlite3"), "export the table as CSV."),
    **dict.fromkeys((".yaml", ".yml", ".xml", ".html"), "write the rows as .jsonl, .csv or .parquet."),
    **dict.fromkeys((".ndjson", ".jsonlines", ".ldjson"), "rename it so that it ends with .jsonl."),
}
"""What to do about files of formats that are not read, by the end of their names."""


def advise(names: list[str]) -> str:
    """Say what to do with files none of which has a known format."""
    ends = (PurePosixPath(name).suffix.lower() for name in names)
    if all(PurePosixPath(PurePosixPath(name).stem).suffix.lower() in _COMPRESSED for name in names):
        return "unpack them once: they are compressed twice."
    remedy = next((_UNREAD[end] for end in ends if end in _UNREAD), None)
    return remedy or "give the files the end of their format, or name those that hold rows in the address."

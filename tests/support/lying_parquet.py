"""Parquet files whose pages state other sizes than they have."""

import io
from typing import Any

import pyarrow
import pyarrow.parquet

from finetune_trainer.data.readers import parquet_pages

_DATA, _DICTIONARY = 0, 2
_STRUCT, _INTEGER = 12, 5


def write_lying(*, in_dictionary: bool = False, **stated: int) -> bytes:
    """Write a file of 2,000 rows of which a page's header lies.

    Args:
        in_dictionary: whether it is that of the dictionary, else that of the data.
        stated: `num_bytes`, `num_compressed` and `num_values` as the header says; those it leaves out are true.
    """
    sink = io.BytesIO()
    table = pyarrow.table({"text": [f"some text {n}" for n in range(2000)], "label": ["a", "b"] * 1000})
    pyarrow.parquet.write_table(table, sink, compression="zstd")
    content = sink.getvalue()
    chunk = pyarrow.parquet.ParquetFile(sink).metadata.row_group(0).column(0)
    at = chunk.dictionary_page_offset if in_dictionary else chunk.data_page_offset
    fields, num_header = parquet_pages._read_header(io.BytesIO(content), at)
    _, num_bytes, num_compressed = (fields[number] for number in (1, 2, 3))
    num_values = fields[7 if in_dictionary else 5][1]
    end = at + num_header + num_compressed
    header = b""
    for _ in range(3):  # until the header is as long as it takes itself to be
        left = end - at - len(header)
        header = _write_header(
            _DICTIONARY if in_dictionary else _DATA,
            stated.get("num_bytes", num_bytes),
            stated.get("num_compressed", left),
            stated.get("num_values", num_values),
        )
    body = content[at + num_header : end]
    return content[:at] + header + body[: end - at - len(header)] + content[end:]


def _write_header(kind: int, *sizes: int) -> bytes:
    *of_page, num_values = sizes
    own = [num_values, 0] if kind == _DICTIONARY else [num_values, 8, 3, 3]
    place = 7 if kind == _DICTIONARY else 5
    fields = b"".join(_write_field(1, _INTEGER, _write_integer(value)) for value in (kind, *of_page))
    inner = b"".join(_write_field(1, _INTEGER, _write_integer(value)) for value in own) + b"\0"
    return fields + _write_field(place - 3, _STRUCT, inner) + b"\0"


def _write_field(step: int, kind: int, value: bytes) -> bytes:
    return bytes([step << 4 | kind]) + value


def _write_integer(value: Any) -> bytes:
    number = (value << 1) ^ (value >> 63)
    written = b""
    while number >= 0x80:
        written += bytes([number & 0x7F | 0x80])
        number >>= 7
    return written + bytes([number])

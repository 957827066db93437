"""The sizes that the pages of a parquet file state, read before any of them is decoded.

A file's footer says what its columns become, but a decoder believes each page's own header: it takes as much memory as
that asks for. Here the headers are read and compared with the footer, page by page, without decompressing one. They are
structs of Thrift's compact protocol: https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md,
their fields those of https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

_HEADER_BYTES = 2**14
"""Read at once for a header: the largest have two statistics, each cut to 4 KB by the usual writers."""
_MAX_HEADER_BYTES = 2**20
"""Longest header that is looked at (a choice); the decoder takes no more than 16 MiB."""
_MAX_DEPTH = 8
_UNCOMPRESSED, _COMPRESSED, _DATA, _DICTIONARY, _DATA_V2 = 2, 3, 5, 7, 8
"""Fields of a page's header; the first field of each kind's own header is its number of values."""
_NUM_VALUES = 1


class PageError(Exception):
    """A page's header is no header, or says what can't be; the message says what it must."""


@dataclass(frozen=True, slots=True)
class Page:
    """What a page says of itself."""

    num_bytes: int
    """Uncompressed."""
    num_values: int
    is_dictionary: bool


def check_pages(stream: BinaryIO, chunk: Any, max_bytes: int) -> None:
    """Check that the pages of a column in a row group are what the footer says, and none is too large.

    Args:
        stream: of the file.
        chunk: the column's metadata, as pyarrow gives them.
        max_bytes: most bytes that a page may state.

    Raises:
        PageError: one isn't.
    """
    if not chunk.num_values:
        return  # nothing of it is decoded, and it may have no page
    num_values = 0
    for page in _iterate_pages(stream, chunk):
        if not 0 <= page.num_bytes <= max_bytes:
            raise PageError(f"have pages of at most {max_bytes} bytes; one states {page.num_bytes}")
        if page.is_dictionary:
            # The shortest value, an empty text, takes the four bytes of its length; the decoder sixteen.
            if not 0 <= page.num_values <= page.num_bytes:
                raise PageError(
                    f"have dictionaries no longer than their page of {page.num_bytes} bytes; one states"
                    f" {page.num_values} values"
                )
            continue
        num_values += page.num_values
        if page.num_values < 0 or num_values > chunk.num_values:
            raise PageError(f"have pages of {chunk.num_values} values, as the footer says; they state more")


def _iterate_pages(stream: BinaryIO, chunk: Any) -> Iterator[Page]:
    starts = [chunk.data_page_offset]
    if chunk.has_dictionary_page and chunk.dictionary_page_offset:
        starts.append(chunk.dictionary_page_offset)
    at = min(starts)
    end = at + chunk.total_compressed_size
    while at < end:
        fields, num_header = _read_header(stream, at)
        size = fields.get(_COMPRESSED)
        if not isinstance(size, int) or size < 0 or at + num_header + size > end:
            raise PageError("have pages that lie within their column; one doesn't")
        at += num_header + size
        uncompressed = fields.get(_UNCOMPRESSED)
        if not isinstance(uncompressed, int):
            raise PageError("say of each page how large it is; one doesn't")
        for kind in (_DATA, _DATA_V2, _DICTIONARY):
            own = fields.get(kind)
            if isinstance(own, dict):
                number = own.get(_NUM_VALUES)
                yield Page(uncompressed, number if isinstance(number, int) else -1, kind == _DICTIONARY)


def _read_header(stream: BinaryIO, at: int) -> tuple[dict[int, Any], int]:
    """Return the fields of the header at a place, and how many bytes it has."""
    size = _HEADER_BYTES
    while True:
        stream.seek(at)
        reader = _Reader(stream.read(size))
        try:
            return reader.read_struct(), reader.at
        except IndexError as error:
            if len(reader.data) < size or size >= _MAX_HEADER_BYTES:
                raise PageError("have whole headers of pages; one ends early") from error
            size *= 4


class _Reader:
    """Reads a struct of Thrift's compact protocol; the bytes that end early raise IndexError."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def read_struct(self, depth: int = 0) -> dict[int, Any]:
        """Return integers and structs by the number of their field; other values are passed over."""
        if depth > _MAX_DEPTH:
            raise PageError("have headers of pages that can be read; one is nested too deep")
        fields: dict[int, Any] = {}
        number = 0
        while kind := (head := self._read_byte()) & 0x0F:
            number = number + (head >> 4) if head >> 4 else self._read_zigzag()
            fields[number] = self._read_value(kind, depth)
        return fields

    def _read_value(self, kind: int, depth: int) -> Any:
        match kind:
            case 1 | 2:  # a boolean within its field's head
                return kind == 1
            case 3:
                return self._read_byte()
            case 4 | 5 | 6:
                return self._read_zigzag()
            case 7:
                self._skip(8)
            case 8:
                self._skip(self._read_varint())
            case 12:
                return self.read_struct(depth + 1)
            case _:  # lists and maps, of which headers of pages have none
                raise PageError("have headers of pages that can be read; one has a field of an unknown kind")
        return None

    def _read_byte(self) -> int:
        value = self.data[self.at]
        self.at += 1
        return value

    def _skip(self, count: int) -> None:
        self.at += count
        if self.at > len(self.data):
            raise IndexError

    def _read_varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._read_byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value
            if shift > 63:
                raise PageError("have headers of pages that can be read; a number in one has no end")

    def _read_zigzag(self) -> int:
        value = self._read_varint()
        return (value >> 1) ^ -(value & 1)

"""The bytes and lines of a file, plain or compressed, each bounded."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

import pyarrow

from finetune_api.errors import DataError
from finetune_trainer.data.findings import Findings
from finetune_trainer.data.readers.record import MAX_GROWTH, MAX_ROW_BYTES

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

COMPRESSIONS: dict[str, Literal["gzip", "zstd"]] = {".gz": "gzip", ".zst": "zstd"}
"""By the end of a file's name, as pyarrow calls them: it notices a stream that ends early, in both."""

_CHUNK_BYTES = 2**18


def iterate_lines(path: Path, name: str, findings: Findings) -> Iterator[tuple[int, str]]:
    """Yield number and text of each line, with its line end; a line that is too long or not UTF-8 is a finding."""
    number = 0
    with open_bytes(path, name) as stream:
        while line := _read_line(stream, f"{name} after line {number}"):
            number += 1
            if len(line) > MAX_ROW_BYTES:
                findings.add(f"{name} line {number}", f"must have at most {MAX_ROW_BYTES} bytes")
                while line and not line.endswith(b"\n"):
                    line = _read_line(stream, f"{name} after line {number}")
                continue
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                findings.add(f"{name} line {number}", f"must be UTF-8; byte {error.start + 1} is not")


def _read_line(stream: BinaryIO, place: str) -> bytes:
    try:
        return stream.readline(MAX_ROW_BYTES + 1)
    except OSError as error:
        raise DataError(f"{place}: {error}", "upload the file again, whole.") from error


class _Decompressor(io.RawIOBase):
    """Bytes of a compressed file, ended by an error when they grow out of proportion."""

    def __init__(self, path: Path, name: str, compression: Literal["gzip", "zstd"]) -> None:
        super().__init__()
        self._stream = pyarrow.input_stream(path, compression=compression)
        self._name = name
        self._left = path.stat().st_size * MAX_GROWTH + _CHUNK_BYTES

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        count: int = self._stream.readinto(buffer)
        self._left -= count
        if self._left < 0:
            raise DataError(
                f"{self._name} must not grow to more than {MAX_GROWTH} times its size", "upload it without compression."
            )
        return count

    def close(self) -> None:
        self._stream.close()
        super().close()


def open_bytes(path: Path, name: str) -> BinaryIO:
    for suffix, compression in COMPRESSIONS.items():
        if name.lower().endswith(suffix):
            return io.BufferedReader(_Decompressor(path, name, compression), _CHUNK_BYTES)
    return path.open("rb", _CHUNK_BYTES)

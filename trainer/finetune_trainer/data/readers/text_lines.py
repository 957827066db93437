"""The bytes and lines of a file, plain or compressed, each bounded."""

import codecs
import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

import pyarrow

from finetune_api.errors import DataError
from finetune_trainer.data.findings import Findings
from finetune_trainer.data.readers import signatures
from finetune_trainer.data.readers.record import MAX_GROWTH, MAX_ROW_BYTES

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

COMPRESSIONS: dict[str, Literal["gzip", "zstd"]] = {".gz": "gzip", ".zst": "zstd"}
"""By the end of a file's name, as pyarrow calls them: it notices a stream that ends early, in both."""

_CHUNK_BYTES = 2**18
_ZERO = b"\0"
_DAMAGED = "write the file again: zeros stand where it was cut off, or a text has another encoding than UTF-8."
_MAGIC = {"gzip": b"\x1f\x8b", "zstd": b"\x28\xb5\x2f\xfd"}


def open_bytes(path: Path, name: str) -> "io.BufferedReader[io.RawIOBase]":
    """Open a file, decompressed; what can't be text is refused.

    Raises:
        DataError: the file is not what its name says, or begins like something else than text.
    """
    compression = next((kind for suffix, kind in COMPRESSIONS.items() if name.lower().endswith(suffix)), None)
    raw: io.RawIOBase = io.FileIO(path) if compression is None else _Decompressor(path, name, compression)
    stream = io.BufferedReader(raw, _CHUNK_BYTES)
    try:
        signatures.check_text(stream.peek(_CHUNK_BYTES), name)
    except OSError as error:
        stream.close()
        raise DataError(f"{name}: {error}", "upload the file again, whole.") from error
    except DataError:
        stream.close()
        raise
    return stream


def iterate_lines(path: Path, name: str, findings: Findings) -> Iterator[tuple[int, str]]:
    """Yield number and text of each line, with its line end; one that is too long or not UTF-8 is a finding.

    A mark of UTF-8 is left out wherever a line begins with one, as in files put together; what holds zeros is refused.
    """
    number = 0
    with open_bytes(path, name) as stream:
        while line := _read_line(stream, f"{name} after line {number}"):
            number += 1
            if len(line) > MAX_ROW_BYTES:
                findings.add(f"{name} line {number}", f"must have at most {MAX_ROW_BYTES} bytes")
                while line and not line.endswith(b"\n"):
                    line = _read_line(stream, f"{name} after line {number}")
                continue
            if _ZERO in line:
                findings.add(f"{name} line {number}", "must not hold zeros (NUL)", _DAMAGED)
                line = line.replace(_ZERO, b"")
            while line.startswith(codecs.BOM_UTF8):
                line = line.removeprefix(codecs.BOM_UTF8)
                if number > 1:
                    findings.note(f"{name}: lines begin with a mark of UTF-8, as in files put together; left out")
            try:
                text = line.decode()
            except UnicodeDecodeError as error:
                guess = signatures.guess_encoding(line)
                findings.add(
                    f"{name} line {number}", f"must be UTF-8; byte {error.start + 1} is not{guess}", signatures.ENCODE
                )
                # Passed on all the same: a row of CSV may have several lines, and the rest must keep their places.
                text = line.decode(errors="replace")
            yield number, text


def _read_line(stream: BinaryIO, place: str) -> bytes:
    try:
        return stream.readline(MAX_ROW_BYTES + 1)
    except OSError as error:
        raise DataError(f"{place}: {error}", "upload the file again, whole.") from error


class _Decompressor(io.RawIOBase):
    """Bytes of a compressed file, ended by an error when they grow out of proportion."""

    def __init__(self, path: Path, name: str, compression: Literal["gzip", "zstd"]) -> None:
        super().__init__()
        with path.open("rb") as file:
            start = file.read(len(_MAGIC[compression]))
        if start and start != _MAGIC[compression]:
            raise DataError(
                f"{name} must be compressed with {compression}, as its name says; it is not",
                f"rename it to {name.rpartition('.')[0]}, or compress it.",
            )
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

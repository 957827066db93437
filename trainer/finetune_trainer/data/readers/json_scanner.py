"""JSON values one after another from a stream, so that a list of a gigabyte never stands in memory.

The text is decoded as it is needed; what was read of it is dropped with each value. A single value is bounded.
"""

import codecs
import json
import re
from typing import BinaryIO

from finetune_api.errors import DataError
from finetune_trainer.data.readers import signatures
from finetune_trainer.data.readers.record import MAX_JSON_DEPTH, MAX_ROW_BYTES

_CHUNK_BYTES = 2**16
_BLANKS = re.compile(r"[ \t\r\n]*")


class TooLongError(Exception):
    """A value is longer than `MAX_ROW_BYTES`; the scanner stands where it begins."""


class Scanner:
    """Reads marks and values from a stream of bytes."""

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self._stream = stream
        self._name = name
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._text = ""
        self._at = 0
        self._lines_dropped = 0
        self._is_ended = False
        self._parse = json.JSONDecoder().raw_decode

    @property
    def line(self) -> int:
        """Number of the line where the next character stands, from 1."""
        return self._lines_dropped + self._text.count("\n", 0, self._at) + 1

    def peek(self) -> str:
        """Return the next character that is not blank, without reading it; nothing at the end."""
        while True:
            self._at = _BLANKS.match(self._text, self._at).end()  # type: ignore[union-attr] # it matches anywhere
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._fill():
                return ""

    def take(self, mark: str) -> bool:
        """Read a mark if it is what comes next."""
        if self.peek() != mark:
            return False
        self._at += 1
        return True

    def read_value(self) -> object:
        """Read one value.

        Raises:
            TooLongError: it has more than `MAX_ROW_BYTES`; nothing was read.
            DataError: it is no JSON, with the line where that shows.
        """
        self.peek()
        while True:
            try:
                value, end = self._parse(self._text, self._at)
            except json.JSONDecodeError as error:
                self._check_length(len(self._text))
                if self._fill():
                    continue
                raise self._build_error(error) from error
            except RecursionError as error:
                raise DataError(
                    f"{self._name} line {self.line}: must be nested at most {MAX_JSON_DEPTH} levels deep",
                    "leave out what is nested deeper.",
                ) from error
            except ValueError as error:  # an integer of more than 4,300 digits
                raise DataError(
                    f"{self._name} line {self.line}: must be JSON that can be read; {error}",
                    "write long numbers as texts.",
                ) from error
            if end == len(self._text) and self._fill():
                continue  # a number may go on
            self._check_length(end)
            self._at = end
            return value

    def _check_length(self, end: int) -> None:
        if end - self._at > MAX_ROW_BYTES:
            raise TooLongError

    def _build_error(self, error: json.JSONDecodeError) -> DataError:
        line = self._lines_dropped + self._text.count("\n", 0, error.pos) + 1
        column = error.pos - self._text.rfind("\n", 0, error.pos)
        if not self._text[error.pos :].strip() or error.msg.startswith("Unterminated"):
            return DataError(f"{self._name} line {line}: must go on; the file ends", "upload the file again, whole.")
        at = self._text[error.pos]
        found, remedy = f"{error.msg} at column {column}", "correct that line."
        if at == "'":
            found = f"a single quote at column {column}"
            remedy = "write the rows with json.dumps: names and texts stand in double quotes."
        elif self._text.startswith(("//", "/*", "#"), error.pos):
            found, remedy = f"a comment at column {column}", "remove it: JSON has none."
        elif at in "]}" and self._text[: error.pos].rstrip().endswith(","):
            found, remedy = f"nothing follows the comma before {at}", "remove that comma."
        elif self._text.startswith(("True", "False", "None"), error.pos):
            found, remedy = f"{found}, where one of Python's words stands", "write the rows with json.dumps."
        return DataError(f"{self._name} line {line}: must be JSON; {found}", remedy)

    def _fill(self) -> bool:
        """Read more of the stream, dropping what was read; tell whether there was any."""
        if self._is_ended:
            return False
        try:
            chunk = self._stream.read(_CHUNK_BYTES)
        except OSError as error:
            raise DataError(f"{self._name}: {error}", "upload the file again, whole.") from error
        self._is_ended = not chunk
        try:
            more = self._decoder.decode(chunk, final=self._is_ended)
        except UnicodeDecodeError as error:
            before = error.object[: error.start]
            line = self._lines_dropped + self._text.count("\n") + before.count(b"\n") + 1
            guess = signatures.guess_encoding(error.object)
            raise DataError(f"{self._name} line {line}: must be UTF-8{guess}", signatures.ENCODE) from error
        if chunk:
            self._lines_dropped += self._text.count("\n", 0, self._at)
            self._text, self._at = self._text[self._at :] + more, 0
        return bool(chunk)

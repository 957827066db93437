"""One row of a file, and how large rows and files may be."""

from collections.abc import Mapping
from dataclasses import dataclass

from finetune_api.errors import DataError

MAX_ROW_BYTES = 2**20
"""Longest row (a choice): a thousand times the usual, and still cheap to refuse."""
MAX_COLUMNS = 1000
"""Most columns of a file (a choice): more are features of another kind of model."""
MAX_JSON_DEPTH = 32
"""Deepest nesting of a row (a choice): conversations with calls of tools have 6."""
MAX_GROWTH = 200
"""Most bytes one byte of a compressed file may become (a choice); text reaches 10 to 20."""


@dataclass(frozen=True, slots=True)
class Record:
    """One row: where it stands and its columns."""

    place: str
    """File and line as a person finds them: `train.jsonl line 17`; parquet has rows, from 1."""
    values: Mapping[str, object]


class EmptyFileError(DataError):
    """A file without a row."""

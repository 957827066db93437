"""Rows of JSON: one object a line (.jsonl), or a list of them (.json)."""

import json
from collections.abc import Iterator
from pathlib import Path

from finetune_api.errors import DataError
from finetune_trainer.data.findings import Findings
from finetune_trainer.data.readers import streams
from finetune_trainer.data.readers.record import MAX_JSON_DEPTH, Record

_MAX_JSON_BYTES = 256 * 2**20


def read_lines(path: Path, name: str, findings: Findings) -> Iterator[Record]:
    for number, line in streams.iterate_lines(path, name, findings):
        if line.strip():
            yield from _parse_object(line, f"{name} line {number}", findings)


def _parse_object(text: str, place: str, findings: Findings) -> Iterator[Record]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        findings.add(place, f"must be one JSON object; {error.msg} at column {error.colno}")
        return
    except RecursionError:
        findings.add(place, f"must be nested at most {MAX_JSON_DEPTH} levels deep")
        return
    except ValueError as error:  # an integer of more than 4,300 digits
        findings.add(place, f"must be one JSON object; {error}")
        return
    yield from _build_record(value, place, findings)


def _build_record(value: object, place: str, findings: Findings) -> Iterator[Record]:
    if not isinstance(value, dict):
        findings.add(place, f"must be a JSON object with named columns, not {type(value).__name__}")
    elif _is_deeper(value, MAX_JSON_DEPTH):
        findings.add(place, f"must be nested at most {MAX_JSON_DEPTH} levels deep")
    else:
        yield Record(place, value)


def _is_deeper(value: object, depth: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    children = value.values() if isinstance(value, dict) else value
    return depth == 0 or any(_is_deeper(child, depth - 1) for child in children)


def read_document(path: Path, name: str, findings: Findings) -> Iterator[Record]:
    """Read a list of objects; the row's number stands for its line."""
    try:
        with streams.open_bytes(path, name) as stream:
            content = stream.read(_MAX_JSON_BYTES + 1)
    except OSError as error:
        raise DataError(f"{name}: {error}", "upload the file again, whole.") from error
    if len(content) > _MAX_JSON_BYTES:
        raise DataError(f"{name} must have at most {_MAX_JSON_BYTES} bytes", "use .jsonl, which is read row by row.")
    if not content.strip():
        return
    try:
        value = json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{name} line {line}: must be UTF-8", "save the file in UTF-8.") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{name} line {error.lineno}: must be JSON; {error.msg}", "correct the file.") from error
    except (RecursionError, ValueError) as error:
        raise DataError(f"{name} must be JSON that can be read; {error}", "correct the file.") from error
    if not isinstance(value, list):
        raise DataError(
            f"{name} must be a JSON list of objects, not {type(value).__name__}", "use .jsonl for one object per line."
        )
    for number, item in enumerate(value, 1):
        yield from _build_record(item, f"{name} row {number}", findings)

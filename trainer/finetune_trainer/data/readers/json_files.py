"""Rows of JSON: one object a line, a list of objects, objects one after another, or a list within an object.

The ends .jsonl and .json only say what is expected; what stands in the file decides, and a difference is noted.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from finetune_api import wording
from finetune_api.errors import DataError
from finetune_trainer.data.findings import Findings
from finetune_trainer.data.readers import text_lines
from finetune_trainer.data.readers.json_scanner import Scanner, TooLongError
from finetune_trainer.data.readers.record import MAX_COLUMNS, MAX_JSON_DEPTH, MAX_ROW_BYTES, Record

_WRAPPERS = frozenset(
    {"data", "rows", "examples", "items", "records", "samples", "instances", "dataset", "documents", "results"}
    | {"train", "training", "validation", "dev", "test"}
)
"""Names under which exporters put the list of rows."""
_WRAPPED = re.compile(rf'"({"|".join(sorted(_WRAPPERS))})"\s*:\s*\[\s*\{{')
_HEAD_CHARACTERS = 2**16
_COMMENTS = ("//", "#", "/*")


def read_lines(path: Path, name: str, findings: Findings) -> Iterator[Record]:
    """Read a .jsonl file."""
    with text_lines.open_bytes(path, name) as stream:
        head = stream.peek(_HEAD_CHARACTERS).decode("utf-8-sig", "ignore").lstrip()
    if head.startswith("[") or (head.startswith("{") and not _holds_lines(head) and _holds_document(head)):
        findings.note(f"{name} holds a JSON document, as .json files do, not one object a line; it is read so")
        return _read_document(path, name, findings)
    return _read_lines(path, name, findings)


def read_document(path: Path, name: str, findings: Findings) -> Iterator[Record]:
    """Read a .json file."""
    with text_lines.open_bytes(path, name) as stream:
        head = stream.peek(_HEAD_CHARACTERS).decode("utf-8-sig", "ignore").lstrip()
    if head.startswith("{") and _holds_lines(head):
        findings.note(f"{name} holds one object a line, as .jsonl files do; it is read so")
        return _read_lines(path, name, findings)
    return _read_document(path, name, findings)


def _holds_lines(head: str) -> bool:
    """Tell whether the first line is an object of its own and others follow."""
    first, _, rest = head.partition("\n")
    if not rest.strip():
        return False
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        return False
    return True


def _holds_document(head: str) -> bool:
    """Tell whether a first line that is no object of its own belongs to objects that go on over lines."""
    first, _, rest = head.partition("\n")
    if not rest.strip():
        return _WRAPPED.search(head) is not None or _is_followed(first)
    if _is_followed(first):
        return True
    try:
        _, end = json.JSONDecoder().raw_decode(head)
    except (ValueError, RecursionError):
        # Too long to be seen whole: a document if it opens with a bracket and nothing more on the line.
        return first.strip() in ("{", "[") or _WRAPPED.match(head, head.find('"')) is not None
    return "\n" in head[:end].rstrip()


def _is_followed(line: str) -> bool:
    """Tell whether a line begins with a whole object that another one, or a comma, follows."""
    try:
        _, end = json.JSONDecoder().raw_decode(line)
    except (ValueError, RecursionError):
        return False
    return line[end:].strip()[:1] in ("{", ",") and bool(line[end:].strip())


def _read_lines(path: Path, name: str, findings: Findings) -> Iterator[Record]:
    for number, line in text_lines.iterate_lines(path, name, findings):
        if line.strip():
            yield from _parse_object(line.rstrip(), f"{name} line {number}", findings)


def _parse_object(text: str, place: str, findings: Findings) -> Iterator[Record]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        findings.add(place, f"must be one JSON object; {error.msg} at column {error.colno}{_explain(text, error)}")
        return
    except RecursionError:
        findings.add(place, f"must be nested at most {MAX_JSON_DEPTH} levels deep")
        return
    except ValueError as error:  # an integer of more than 4,300 digits
        findings.add(place, f"must be one JSON object; {error}")
        return
    yield from _build_record(value, place, findings)


def _explain(text: str, error: json.JSONDecodeError) -> str:
    at = text[error.pos : error.pos + 1]
    if at == "'":
        return " (names and texts must stand in double quotes, as json.dumps writes them)"
    if text.startswith(_COMMENTS):
        return " (JSON has no comments; remove the line)"
    if at == "}" and text[: error.pos].rstrip().endswith(","):
        return " (no comma must stand before it)"
    if error.msg == "Extra data" and at == ",":
        return " (no comma must follow an object)"
    return ""


def _build_record(value: object, place: str, findings: Findings) -> Iterator[Record]:
    if not isinstance(value, dict):
        findings.add(place, f"must be a JSON object with named columns, not {type(value).__name__}")
    elif _is_deeper(value, MAX_JSON_DEPTH):
        findings.add(place, f"must be nested at most {MAX_JSON_DEPTH} levels deep")
    elif len(value) > MAX_COLUMNS:
        findings.add(place, f"must have at most {MAX_COLUMNS} columns, not {len(value)}")
    else:
        yield Record(place, value)


def _is_deeper(value: object, depth: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    children = value.values() if isinstance(value, dict) else value
    return depth == 0 or any(_is_deeper(child, depth - 1) for child in children)


def _read_document(path: Path, name: str, findings: Findings) -> Iterator[Record]:
    """Read whatever JSON a file holds; the row's number stands for its line within a list."""
    with text_lines.open_bytes(path, name) as stream:
        scanner = Scanner(stream, name)
        if scanner.peek() == "[":
            yield from _read_list(scanner, name, findings)
            if scanner.peek():
                raise DataError(
                    f"{name} line {scanner.line}: must end with its list; more follows",
                    "write one list of all rows, or one object a line.",
                )
        else:
            yield from _read_sequence(scanner, name, findings)


def _read_list(scanner: Scanner, name: str, findings: Findings) -> Iterator[Record]:
    scanner.take("[")
    number = 0
    while not scanner.take("]"):
        number += 1
        place = f"{name} row {number}"
        try:
            yield from _build_record(scanner.read_value(), place, findings)
        except TooLongError:
            raise DataError(
                f"{place}: must have at most {MAX_ROW_BYTES} bytes", "shorten the row, or leave it out."
            ) from None
        if scanner.take(","):
            if scanner.peek() == "]":
                raise DataError(
                    f"{name} line {scanner.line}: must be JSON; nothing follows the comma before ]",
                    "remove that comma.",
                )
        elif scanner.peek() != "]":
            raise _build_gap(scanner, name, "a comma or ]")


def _build_gap(scanner: Scanner, name: str, wanted: str) -> DataError:
    if not scanner.peek():
        return DataError(f"{name} line {scanner.line}: must go on; the file ends", "upload the file again, whole.")
    return DataError(
        f"{name} line {scanner.line}: must have {wanted} after a row; it has {wording.show_value(scanner.peek())}",
        "write one list of all rows, or one object a line.",
    )


def _read_sequence(scanner: Scanner, name: str, findings: Findings) -> Iterator[Record]:
    """Read objects that follow each other, with or without commas; a single one may hold the list of rows."""
    number = 0
    while scanner.peek():
        number += 1
        place = f"{name} line {scanner.line}"
        try:
            value = scanner.read_value()
        except TooLongError:
            if number > 1 or scanner.peek() != "{":
                raise DataError(
                    f"{place}: must have at most {MAX_ROW_BYTES} bytes", "shorten the row, or leave it out."
                ) from None
            yield from _read_wrapped(scanner, name, findings)
            return
        scanner.take(",")
        if number == 1 and not scanner.peek() and isinstance(value, dict):
            yield from _read_only(value, name, place, findings)
        else:
            yield from _build_record(value, place, findings)


def _read_only(value: dict[str, object], name: str, place: str, findings: Findings) -> Iterator[Record]:
    """Read a document of one object: the list of rows it holds, or a row of its own."""
    lists = {key: item for key, item in value.items() if isinstance(item, list) and item and isinstance(item[0], dict)}
    wrapped = [key for key in lists if key.lower() in _WRAPPERS]
    if not wrapped:
        _check_orientation(value, name)
        yield from _build_record(value, place, findings)
        return
    if len(wrapped) > 1:
        raise _build_several(wrapped, name)
    findings.note(f"{name}: the rows are the list under {wording.show_value(wrapped[0])}; the rest is left out")
    for number, item in enumerate(lists[wrapped[0]], 1):
        yield from _build_record(item, f"{name} row {number}", findings)


def _build_several(names: list[str], name: str) -> DataError:
    return DataError(
        f"{name} must hold one list of rows; it has several: {wording.show_names(names)}",
        "write each list into a file of its own, and name them in spec.data[0].train, validation and test.",
    )


def _check_orientation(value: dict[str, object], name: str) -> None:
    """Refuse a table written by its columns, as pandas does when it is not told otherwise."""
    is_split = {"columns", "data"} <= set(value) and isinstance(value["data"], list)
    columns = [item for item in value.values() if isinstance(item, dict | list)]
    keys = {tuple(item)[:3] if isinstance(item, dict) else len(item) for item in columns}
    is_columns = len(value) > 1 and len(columns) == len(value) and len(keys) == 1 and any(keys)
    if is_split or is_columns:
        raise DataError(
            f"{name} must hold rows; it holds columns ({wording.show_names(list(value))}), as pandas writes them",
            'write it with DataFrame.to_json(…, orient="records", lines=True) and name it .jsonl.',
        )


def _read_wrapped(scanner: Scanner, name: str, findings: Findings) -> Iterator[Record]:
    """Read an object too large to be a row: the list of objects it holds, row by row."""
    scanner.take("{")
    found: list[str] = []
    while not scanner.take("}"):
        key = str(_read_part(scanner, name))
        if not scanner.take(":"):
            raise _build_gap(scanner, name, "a colon")
        if scanner.peek() == "[" and key.lower() in _WRAPPERS:
            found.append(key)
            if len(found) > 1:
                raise _build_several(found, name)
            findings.note(f"{name}: the rows are the list under {wording.show_value(key)}; the rest is left out")
            yield from _read_list(scanner, name, findings)
        else:
            _read_part(scanner, name)
        if not scanner.take(",") and scanner.peek() != "}":
            raise _build_gap(scanner, name, "a comma or }")
    if not found:
        raise _build_too_long(name)


def _read_part(scanner: Scanner, name: str) -> object:
    try:
        return scanner.read_value()
    except TooLongError:
        raise _build_too_long(name) from None


def _build_too_long(name: str) -> DataError:
    return DataError(
        f"{name} line 1: must have at most {MAX_ROW_BYTES} bytes in one object, or hold its rows in a list named"
        " data or rows",
        'write one object a line (in pandas: DataFrame.to_json(…, orient="records", lines=True)) and name it .jsonl.',
    )

"""Command-line arguments -> texts: files, folders and standard input, each read at most once and never beyond 1 MiB.

A path that can't be read ends the command (`UnreadableError`); a file that is too large or not text is a finding of
that file, so that the others are still checked.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

MAX_FILE_BYTES = 1024 * 1024
"""Largest file read; a choice below the 1.5 MiB that etcd stores (https://etcd.io/docs/latest/dev-guide/limit/)."""
STDIN_ARGUMENT = "-"
STDIN_NAME = "stdin"
_SUFFIXES = frozenset({".yaml", ".yml", ".json"})


class UnreadableError(Exception):
    """An argument can't be read at all; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Source:
    """One file's text, or the reason why it has none."""

    name: str
    text: str
    problem: str = ""


def load_sources(arguments: Sequence[str], stdin: BinaryIO) -> list[Source]:
    """Read every argument: a file as it is, a folder with all its .yaml, .yml and .json files, `-` as standard input.

    Raises:
        UnreadableError: a path is missing, can't be opened, or is a folder without such files; all of them are named.
    """
    sources: list[Source] = []
    problems: list[str] = []
    for argument in dict.fromkeys(arguments):
        try:
            sources += list(_load_argument(argument, stdin))
        except UnreadableError as error:
            problems.append(str(error))
        except OSError as error:
            problems.append(f"{argument} must be readable; {error.strerror}")
    if problems:
        raise UnreadableError("\n".join(problems))
    return sources


def _load_argument(argument: str, stdin: BinaryIO) -> Iterator[Source]:
    if argument == STDIN_ARGUMENT:
        yield _build_source(STDIN_NAME, stdin.read(MAX_FILE_BYTES + 1))
        return
    path = Path(argument)
    files = sorted(_find_files(path)) if path.is_dir() else [path]
    if not files:
        raise UnreadableError(f"{argument} must hold .yaml, .yml or .json files; it has none")
    for file in files:
        with file.open("rb") as stream:
            yield _build_source(str(file), stream.read(MAX_FILE_BYTES + 1))


def _find_files(folder: Path) -> Iterator[Path]:
    """Walk a folder without following links and without hidden folders such as .git."""
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        candidates = (Path(parent, name) for name in names)
        yield from (file for file in candidates if file.suffix.lower() in _SUFFIXES and file.is_file())


def _build_source(name: str, content: bytes) -> Source:
    if len(content) > MAX_FILE_BYTES:
        return Source(name, "", f"file must be at most {MAX_FILE_BYTES:,} bytes; split it")
    try:
        return Source(name, content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return Source(name, "", f"file must be UTF-8 text; byte {error.start:,} is not")

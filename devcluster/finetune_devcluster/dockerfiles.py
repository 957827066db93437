"""What a Dockerfile builds from: its base images, and the files of the context that its instructions read.

Only as much of the language as is needed to tell whether an image has to be built again. Where in doubt a file counts
as an input: a build too many costs a minute, a build too few costs an afternoon.
"""

from __future__ import annotations

import fnmatch
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

_VARIABLE = re.compile(r"\$\{?(\w+)(?::-([^}]*))?\}?")  # $NAME, ${NAME}, ${NAME:-default}
_ALWAYS_LEFT_OUT = ("**/__pycache__", "**/*.pyc", ".git")


def parse_base_images(text: str, arguments: Mapping[str, str]) -> list[str]:
    """Return the images named by FROM that are no stages of the file itself, each once.

    Args:
        text: The Dockerfile.
        arguments: Build arguments; they replace the defaults of ARG.
    """
    values: dict[str, str] = {}
    stages: set[str] = {"scratch"}
    found: list[str] = []
    for instruction, rest in _instructions(text):
        if instruction == "ARG":
            name, _, default = rest.partition("=")
            values[name.strip()] = arguments.get(name.strip(), default.strip().strip("\"'"))
        elif instruction == "FROM":
            words = [word for word in rest.split() if not word.startswith("--")]
            image = re.sub(
                r"\$\{?(\w+)(?::-([^}]*))?\}?", lambda match: values.get(match[1]) or match[2] or "", words[0]
            )
            if image.lower() not in stages and image not in found:
                found.append(image)
            if len(words) > 2:
                stages.add(words[2].lower())
    return found


def list_inputs(text: str, context: Path) -> list[Path]:
    """Return the files below `context` that COPY, ADD and bind mounts read, without what .dockerignore leaves out.

    Raises:
        ValueError: an instruction names a file that is not there.
    """
    ignored = _load_ignored(context)
    found: set[Path] = set()
    for pattern in _source_patterns(text):
        matches = [context] if pattern in {".", "./", ""} else sorted(context.glob(pattern.strip("/")))
        if not matches:
            raise ValueError(f"COPY {pattern} (no such file) must name files of {context}; add them or fix the line")
        for match in matches:
            files = [path for path in match.rglob("*") if path.is_file()] if match.is_dir() else [match]
            found.update(path for path in files if not _is_ignored(path.relative_to(context), ignored))
    return sorted(found)


def _instructions(text: str) -> Iterator[tuple[str, str]]:
    without_comments = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    for line in re.sub(r"\\\s*\n", " ", without_comments).splitlines():
        word, _, rest = line.strip().partition(" ")
        if word:
            yield word.upper(), rest.strip()


def _source_patterns(text: str) -> Iterator[str]:
    for instruction, rest in _instructions(text):
        if instruction in {"COPY", "ADD"} and "--from=" not in rest:
            words = [word for word in shlex.split(rest.strip("[]").replace(",", " ")) if not word.startswith("--")]
            yield from (word for word in words[:-1] if "://" not in word)
        elif instruction == "RUN":
            for mount in re.findall(r"--mount=(\S*type=bind\S*)", rest):
                options = dict(option.partition("=")[::2] for option in mount.split(","))
                if "from" not in options:
                    yield options.get("source") or options.get("src") or "."


def _load_ignored(context: Path) -> list[str]:
    file = context / ".dockerignore"
    lines = file.read_text().splitlines() if file.exists() else []
    return [*_ALWAYS_LEFT_OUT, *(line.strip() for line in lines if line.strip() and not line.startswith("#"))]


def _is_ignored(path: Path, patterns: list[str]) -> bool:
    names = [str(path), *(str(parent) for parent in path.parents)][:-1]
    is_ignored = False
    for pattern in patterns:  # the last that matches decides
        plain = pattern.removeprefix("!").strip("/")
        forms = (plain, plain.removeprefix("**/"), f"*/{plain.removeprefix('**/')}")
        used = forms if plain.startswith("**/") else forms[:1]
        if any(fnmatch.fnmatchcase(name, form) for name in names for form in used):
            is_ignored = not pattern.startswith("!")
    return is_ignored

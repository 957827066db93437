"""Text -> the YAML or JSON documents in it, each with the line of every field.

The nodes are turned into plain data here instead of by PyYAML: kubectl's reading of words (`scalars`), duplicate keys
refused, no tag ever constructs an object, and what aliases multiply is counted before it is built. Raises nothing for
what a user wrote.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field

import yaml

from finetune_cli.manifests import scalars

MAX_DEPTH = 64
"""Deepest nesting, aliases followed. A choice: a FineTuneJob has 6 levels, a CustomResourceDefinition about 30."""
MAX_NODES = 200_000
"""Most values of one document, aliases followed. A choice: beyond what 1 MiB of ordinary YAML holds."""
_TOO_LARGE = f"it has more than {MAX_NODES:,} values, aliases followed"

_TAG_PREFIX = "tag:yaml.org,2002:"
_MERGE_TAG = f"{_TAG_PREFIX}merge"
_STRING_TAG = f"{_TAG_PREFIX}str"
_PLAIN_TAG = "plain"
"""Our own mark on words without quotes; no text can carry it, written tags begin with `!` or with a prefix."""
_ALLOWED_TAGS = frozenset({_MERGE_TAG, _STRING_TAG, _PLAIN_TAG, f"{_TAG_PREFIX}map", f"{_TAG_PREFIX}seq"})


@dataclass(frozen=True, slots=True)
class Problem:
    """What keeps a document from being read as kubectl would read it."""

    line: int
    message: str


@dataclass(slots=True)
class Document:
    """One document; `lines` maps a path such as `spec.data[0].train` to the line it begins in."""

    line: int
    data: object = None
    lines: dict[str, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def parse_documents(text: str) -> list[Document]:
    """Read all documents of a text; the one that can't be read ends the list and carries the reason."""
    documents: list[Document] = []
    line = 1
    try:
        loader = _Loader(_prepare(text))
        while loader.check_node() and (root := loader.get_node()) is not None:
            line = root.start_mark.line + 1
            documents.append(_Builder(loader).build_document(root))
    except yaml.YAMLError as error:
        documents.append(_build_unreadable(error, line))
    return documents


def _build_unreadable(error: yaml.YAMLError, line: int) -> Document:
    words = [str(error).splitlines()[0]]
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else line
        words = [part for part in (error.context, error.problem) if part]
    return Document(line, problems=[Problem(line, f"document must be valid YAML; {', '.join(words)}")])


def _prepare(text: str) -> str:
    """Let JSON through that is indented with tabs: between tokens YAML takes no tab, and within them JSON has none."""
    if "\t" in text and text.lstrip()[:1] in ("{", "["):
        try:
            json.loads(text)
        except (ValueError, RecursionError):
            return text
        return text.replace("\t", " ")
    return text


class _Loader(yaml.SafeLoader):
    """PyYAML's reader up to its nodes; words stay words, and depth and size are bounded while nodes are made."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.extents: dict[int, tuple[int, int]] = {}
        self._depth = 0

    def resolve(self, kind: type[yaml.Node], value: str | None, implicit: tuple[bool, bool]) -> str:
        """Mark words without quotes, which `scalars` then gives a type; everything else as PyYAML does."""
        if kind is yaml.ScalarNode and implicit[0]:
            return _MERGE_TAG if value == "<<" else _PLAIN_TAG
        return str(super().resolve(kind, value, implicit))  # type: ignore[no-untyped-call]

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        if self._depth >= MAX_DEPTH:
            raise _refuse(f"it is nested deeper than {MAX_DEPTH} levels", mark)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        if node is not None and id(node) not in self.extents:
            self.extents[id(node)] = self._measure(node, mark)
        if len(self.extents) > MAX_NODES:
            raise _refuse(_TOO_LARGE, mark)
        return node

    def _measure(self, node: yaml.Node, mark: yaml.Mark) -> tuple[int, int]:
        """Return number of values and depth of a node, aliases followed; its children are measured already."""
        if node.end_mark is None:
            raise _refuse("an alias refers to what it stands in", mark)
        below = [self.extents[id(child)] for child in _children(node)]
        size = 1 + sum(extent[0] for extent in below)
        depth = 1 + max((extent[1] for extent in below), default=0)
        if size > MAX_NODES:
            raise _refuse(_TOO_LARGE, mark)
        if depth > MAX_DEPTH:
            raise _refuse(f"with aliases it is nested deeper than {MAX_DEPTH} levels", mark)
        return size, depth


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        for pair in node.value:
            yield from pair
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value


def _refuse(problem: str, mark: yaml.Mark) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


class _Builder:
    """Turns the nodes of one document into plain data, noting lines and problems on the way."""

    def __init__(self, loader: _Loader) -> None:
        self._loader = loader
        self._merged: set[int] = set()
        self._document = Document(1)

    def build_document(self, root: yaml.Node) -> Document:
        self._document.line = root.start_mark.line + 1
        self._document.data = self._build(root, "")
        self._loader.extents.clear()
        return self._document

    def _build(self, node: yaml.Node, path: str) -> object:
        self._document.lines.setdefault(path, node.start_mark.line + 1)
        if node.tag not in _ALLOWED_TAGS:
            self._note(node, f"{path or 'document'} must not carry the tag {node.tag}; remove it")
            return None
        if isinstance(node, yaml.MappingNode):
            return self._build_mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._build(item, f"{path}[{index}]") for index, item in enumerate(node.value)]
        text = str(node.value)
        return scalars.parse_plain(text) if node.tag == _PLAIN_TAG else text

    def _build_mapping(self, node: yaml.MappingNode, path: str) -> dict[str, object]:
        # An aliased object comes by several times, but its merge keys are replaced and its duplicates noted once.
        if id(node) not in self._merged:
            self._merged.add(id(node))
            self._note_duplicates(node, path)
            self._loader.flatten_mapping(node)
        result: dict[str, object] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._note(key, f"{path or 'document'} must have words as keys; a list or an object can't be one")
                continue
            below = _join(path, str(key.value))
            self._document.lines[below] = key.start_mark.line + 1
            result[str(key.value)] = self._build(value, below)
        return result

    def _note_duplicates(self, node: yaml.MappingNode, path: str) -> None:
        seen: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE_TAG:
                continue
            name = str(key.value)
            if name in seen:
                self._note(key, f"{_join(path, name)} must be given once; it stands in line {seen[name]} too")
            seen.setdefault(name, key.start_mark.line + 1)

    def _note(self, node: yaml.Node, message: str) -> None:
        self._document.problems.append(Problem(node.start_mark.line + 1, message))


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key

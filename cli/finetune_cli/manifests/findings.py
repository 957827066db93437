"""Sources -> findings: which documents are FineTuneJobs, what is wrong with them, and in which line.

The rules themselves are `finetune_api.validation`; here they get a file and a line. Pure: no files, no output.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from finetune_api import group, validation
from finetune_api.validation import FieldError
from finetune_cli.manifests import documents
from finetune_cli.manifests.documents import Document
from finetune_cli.manifests.sources import Source

_NEAR = 0.8
"""How alike a misspelt apiVersion or kind must be, as difflib measures it. A choice: it catches a missing or swapped
letter, and not the kind FinetuneJob of another API group."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One error. `line` is 0 where the file has none; `path` is empty where the document itself is at fault."""

    file: str
    line: int
    job: str
    path: str
    value: str
    message: str
    text: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """A document of another kind."""

    file: str
    line: int
    what: str


@dataclass(slots=True)
class Report:
    """What a whole check found."""

    valid: int = 0
    invalid: int = 0
    findings: list[Finding] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)


def check_sources(sources: Iterable[Source]) -> Report:
    """Check every document of every source."""
    report = Report()
    for source in sources:
        if source.problem:
            report.findings.append(_build_finding(source, 0, source.problem))
            continue
        for document in documents.parse_documents(source.text):
            _check_document(source, document, report)
    return report


def find_jobs(source: Source) -> list[Mapping[str, object]]:
    """Return the FineTuneJobs of a source, list items included, as they were written."""
    return [
        item
        for document in documents.parse_documents(source.text)
        if isinstance(document.data, Mapping)
        for _, item in _list_items(document.data)
        if _is_meant_as_job(item)
    ]


def _check_document(source: Source, document: Document, report: Report) -> None:
    unreadable = [_build_finding(source, problem.line, problem.message) for problem in document.problems]
    report.findings += unreadable
    if document.data is None:
        return
    if not isinstance(document.data, Mapping):
        report.findings.append(_build_finding(source, document.line, "document must be an object; it is none"))
        return
    for prefix, item in _list_items(document.data):
        if not _is_meant_as_job(item):
            line = _find_line(document, prefix, "")
            report.skipped.append(Skipped(source.name, line, _describe(item)))
            continue
        errors = validation.validate_manifest(item)
        located = [_locate(source, document, prefix, _read_name(item), error) for error in errors]
        report.findings += sorted(located, key=lambda finding: finding.line)
        if errors or unreadable:
            report.invalid += 1
        else:
            report.valid += 1


def _list_items(data: Mapping[str, object]) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Yield the document, or each item of a list as `kubectl get -o yaml` writes it, with the prefix of its paths."""
    items = data.get("items")
    if data.get("kind") in ("List", f"{group.KIND}List") and isinstance(items, list):
        for index, item in enumerate(items):
            if isinstance(item, Mapping):
                yield f"items[{index}]", item
        return
    yield "", data


def _is_meant_as_job(item: Mapping[str, object]) -> bool:
    """Tell a FineTuneJob, misspelt ones included, from an object of another kind."""
    version, kind = str(item.get("apiVersion") or ""), str(item.get("kind") or "")
    if kind == group.KIND or version.partition("/")[0] == group.GROUP:
        return True
    return _is_near(kind, group.KIND) and _is_near(version, group.API_VERSION)


def _is_near(text: str, known: str) -> bool:
    return difflib.SequenceMatcher(None, text.lower(), known.lower()).ratio() >= _NEAR


def _describe(item: Mapping[str, object]) -> str:
    kind = item.get("kind")
    return f"{kind} of {item.get('apiVersion') or 'no apiVersion'}" if kind else "a document without kind"


def _read_name(item: Mapping[str, object]) -> str:
    metadata = item.get("metadata")
    return str(metadata.get("name") or "") if isinstance(metadata, Mapping) else ""


def _locate(source: Source, document: Document, prefix: str, job: str, error: FieldError) -> Finding:
    line = _find_line(document, prefix, error.path)
    path = f"{prefix}.{error.path}" if prefix else error.path
    text = f"{prefix}.{error}" if prefix else str(error)
    return Finding(source.name, line, job, path, error.value, error.message, text)


def _find_line(document: Document, prefix: str, path: str) -> int:
    """Return the line of a path, or of the nearest part above it that is written: a missing field has no line."""
    sought = ".".join(part for part in (prefix, path) if part)
    while sought and sought not in document.lines:
        sought = sought[: max(sought.rfind("."), sought.rfind("["), 0)]
    return document.lines.get(sought, document.line)


def _build_finding(source: Source, line: int, message: str) -> Finding:
    return Finding(source.name, line, "", "", "", message, message)

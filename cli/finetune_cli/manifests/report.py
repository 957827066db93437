"""A report -> what is printed: text for people, JSON for programs, workflow commands for GitHub Actions.

Everything a file says is data: control characters are shown escaped, never sent to the terminal.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict
from enum import StrEnum

from finetune_api import group, wording
from finetune_cli.manifests.findings import Finding, Report
from finetune_cli.manifests.sources import STDIN_NAME

JSON_VERSION = 1


class Format(StrEnum):
    TEXT = "text"
    JSON = "json"
    GITHUB = "github"


def build_text(report: Report) -> str:
    """One line per finding and per skipped document, `file:line: …`, then a summary."""
    lines = [_place(item.file, item.line) + item.text for item in report.findings]
    lines += [_place(item.file, item.line) + f"skipped {item.what}" for item in report.skipped]
    return _join_lines([*lines, build_summary(report)])


def build_json(report: Report) -> str:
    """One JSON object; its fields are those of `Finding` and `Skipped`."""
    data = {"version": JSON_VERSION, **asdict(report)}
    return json.dumps(data, indent=2) + "\n"


def build_github(report: Report) -> str:
    """Workflow commands that GitHub Actions shows beside the lines of a pull request, then the summary.

    https://docs.github.com/en/actions/reference/workflow-commands-for-github-actions
    """
    return _join_lines([*(_build_command(item) for item in report.findings), build_summary(report)])


def build_summary(report: Report) -> str:
    """Say in one line how many jobs were checked and how it went."""
    jobs = report.valid + report.invalid
    errors = len(report.findings)
    parts = [f"{_count(jobs, group.KIND)} checked: {report.valid} valid, {report.invalid} invalid"]
    if errors:
        parts.append(_count(errors, "error"))
    if report.skipped:
        parts.append(f"{_count(len(report.skipped), 'other document')} skipped")
    return ", ".join(parts)


BUILDERS: dict[Format, Callable[[Report], str]] = {
    Format.TEXT: build_text,
    Format.JSON: build_json,
    Format.GITHUB: build_github,
}


def _place(file: str, line: int) -> str:
    return f"{file}:{line}: " if line else f"{file}: "


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _join_lines(lines: Iterable[str]) -> str:
    return "".join(f"{wording.escape_controls(line)}\n" for line in lines)


def _build_command(item: Finding) -> str:
    properties = {"title": group.KIND}
    if item.file != STDIN_NAME:
        properties = {"file": item.file} | ({"line": str(item.line)} if item.line else {}) | properties
    written = ",".join(f"{key}={_escape(value, ':,')}" for key, value in properties.items())
    return f"::error {written}::{_escape(item.text)}"


def _escape(text: str, also: str = "") -> str:
    """Escape what would end a workflow command or one of its properties."""
    return "".join(f"%{ord(char):02X}" if char in "%\r\n" or char in also else char for char in text)

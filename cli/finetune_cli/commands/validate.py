"""`finetune validate`: every error of FineTuneJob files at once, with file, line and remedy; offline.

Exit codes are those of linters: 0 all valid, 1 something to fix, 2 nothing could be checked.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from finetune_api import group
from finetune_cli import exit_codes
from finetune_cli.manifests import findings, report, sources
from finetune_cli.manifests.report import Format


def validate(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...",
            help="YAML or JSON files, folders that are searched for them, or - for standard input.",
            show_default=False,
        ),
    ],
    output_format: Annotated[Format, typer.Option("--format", "-f", help="How findings are printed.")] = Format.TEXT,
) -> None:
    """Check FineTuneJobs offline: every error at once, with file, line and what to do.

    Documents of other kinds are skipped. Exit code: 0 all valid, 1 errors found, 2 nothing could be checked.
    """
    try:
        loaded = sources.load_sources(files, sys.stdin.buffer)
    except sources.UnreadableError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(exit_codes.UNCHECKED) from error
    result = findings.check_sources(loaded)
    _show(report.BUILDERS[output_format](result), output_format)
    if result.findings:
        raise typer.Exit(exit_codes.INVALID)
    if not result.valid:
        typer.echo(f"files must hold at least one {group.KIND} of {group.API_VERSION}; they hold none", err=True)
        raise typer.Exit(exit_codes.UNCHECKED)


def _show(text: str, output_format: Format) -> None:
    """Print the report; on a terminal places are bold and the summary has a colour."""
    if output_format is not Format.TEXT or not sys.stdout.isatty():
        typer.echo(text, nl=False)
        return
    console = Console(highlight=False, soft_wrap=True)
    *lines, summary = text.splitlines()
    for line in lines:
        place, separator, rest = line.partition(": ")
        console.print(Text.assemble((place, "bold"), separator, rest))
    console.print(Text(summary, style="red" if "error" in summary else "green"))

"""`finetune try`: both stages of one FineTuneJob on this machine, with folders in place of buckets.

Exit codes: 0 tuned; 1 the file must be corrected; 2 nothing could be tried; otherwise that of the trainer, as its pod
would have ended (docs/reference.md).
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from finetune_api import group, validation
from finetune_api.kinds.finetunejob.spec import FineTuneJobSpec
from finetune_cli import exit_codes
from finetune_cli.local import adapt, inputs, machine, stages, view
from finetune_cli.local.stages import LocalRun
from finetune_cli.manifests import findings, report, sources

_TRAINER_PACKAGES = ("finetune_trainer", "torch", "transformers", "prometheus_client")
_INTERRUPTED = 130
"""As shells say it: 128 + SIGINT."""


def try_locally(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="YAML or JSON file with one FineTuneJob, or - for standard input.")
    ],
    folder: Annotated[
        Path,
        typer.Option(
            "--inputs",
            metavar="DIR",
            help="Folder with a folder per bucket: s3://bucket/key is DIR/bucket/key. Outputs are written there too.",
            show_default=False,
        ),
    ],
    steps: Annotated[
        int | None,
        typer.Option("--steps", min=1, help="Optimizer steps instead of the whole run: a trial.", show_default=False),
    ] = None,
    gpus: Annotated[
        int | None,
        typer.Option(
            "--gpus",
            min=0,
            max=16,
            help="GPUs to train on. Absent: those the job wants, as far as they are here.",
            show_default=False,
        ),
    ] = None,
    log: Annotated[
        Path | None,
        typer.Option(
            "--log", help="File for the trainer's log lines. Absent: kept where the run fails.", show_default=False
        ),
    ] = None,
) -> None:
    """Fine-tune on this machine: both stages of a FineTuneJob, no cluster, no object store, no root.

    Exit code: 0 tuned, 1 errors in the file, 2 nothing could be tried, else the trainer's.
    """
    _require_trainer()
    console = Console(stderr=True, highlight=False)
    manifest = _load_manifest(file)
    spec = FineTuneJobSpec.model_validate(manifest["spec"])
    wanted = min(spec.resources.gpus, machine.count_gpus()) if gpus is None else gpus
    adapted = adapt.adapt_spec(spec, steps=steps, gpus=wanted)
    root = folder.absolute()
    _refuse([str(error) for error in validation.validate_spec(adapted.spec)], exit_codes.INVALID)
    _refuse([str(error) for error in inputs.find_missing(root, adapted.spec)], exit_codes.UNCHECKED)
    for note in adapted.notes:
        console.print(f"note: {note}")
    metadata = manifest["metadata"]
    with tempfile.TemporaryDirectory(prefix="finetune-try-") as scratch:
        local = LocalRun(
            namespace=str(metadata.get("namespace") or "default"),
            name=str(metadata.get("name") or metadata["generateName"]).rstrip("-"),
            uid=str(uuid.uuid4()),
            spec=adapted.spec,
            folder=root,
            scratch=Path(scratch),
            log=log or _make_log(),
        )
        _run(local, console, keep_log=log is not None)


def _make_log() -> Path:
    with tempfile.NamedTemporaryFile(prefix="finetune-try-", suffix=".log", delete=False) as file:
        return Path(file.name)


def _run(local: LocalRun, console: Console, *, keep_log: bool) -> None:
    try:
        with view.ProgressView(console) as progress:
            ended = stages.run_stages(local, progress.show)
    except KeyboardInterrupt:
        typer.echo("interrupted; nothing was published", err=True)
        raise typer.Exit(_INTERRUPTED) from None
    if not ended.is_success:
        view.print_failure(console, ended.message, local.log)
        raise typer.Exit(ended.message.exit_code or exit_codes.INVALID)
    view.print_success(Console(highlight=False), local, ended)
    if not keep_log:
        local.log.unlink(missing_ok=True)


def _require_trainer() -> None:
    missing = [name for name in _TRAINER_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        typer.echo(
            f"finetune try (without {', '.join(missing)}) must have the extras cli and trainer installed; "
            "run: pip install 'finetune-operator[cli,trainer]'",
            err=True,
        )
        raise typer.Exit(exit_codes.UNCHECKED)


def _load_manifest(file: str) -> Mapping[str, Any]:
    """Return the one valid FineTuneJob of a file, or end the command with what is wrong."""
    try:
        loaded = sources.load_sources([file], sys.stdin.buffer)
    except sources.UnreadableError as error:
        _refuse([str(error)], exit_codes.UNCHECKED)
        raise
    result = findings.check_sources(loaded)
    if result.findings:
        typer.echo(report.build_text(result), err=True, nl=False)
        raise typer.Exit(exit_codes.INVALID)
    jobs = [job for source in loaded for job in findings.find_jobs(source)]
    if len(jobs) != 1:
        _refuse([f"{file} must hold one {group.KIND} to try; it holds {len(jobs) or 'none'}"], exit_codes.UNCHECKED)
    return jobs[0]


def _refuse(problems: list[str], code: int) -> None:
    if problems:
        typer.echo("\n".join(problems), err=True)
        raise typer.Exit(code)

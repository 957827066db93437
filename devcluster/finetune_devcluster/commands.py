"""Programs that are run to their end: their output, or an error that carries what they said."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from finetune_devcluster import errors

_SHOWN_CHARACTERS = 3000  # the end of a long output: a build tells its reason last


def run(
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
    text: str | None = None,
) -> str:
    """Run `command` and return what it printed.

    Args:
        command: Program and arguments; shown in errors, so never with a secret in it.
        environment: Added to this process's own.
        directory: Where to run it.
        text: What it reads; nothing by default.

    Raises:
        CommandError: it failed; the error carries the end of what it said.
    """
    result = subprocess.run(
        command,
        env={**os.environ, **(environment or {})},
        cwd=directory,
        input=text or "",
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        said = (result.stderr or result.stdout).strip()[-_SHOWN_CHARACTERS:]
        raise errors.CommandError(f"{' '.join(command)} (exit {result.returncode}) must succeed:\n{said}")
    return result.stdout

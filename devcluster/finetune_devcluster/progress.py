"""What the driver tells the person in front of it: each step, and how long it took.

On a terminal a running step shows a spinner and its elapsed time; a finished one stays as a line. Elsewhere only the
finished lines are printed. Must never decide anything: with `Steps(quiet=True)` all else is the same.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import rich.console
import rich.progress


class Steps:
    """Prints the steps of one command."""

    def __init__(self, *, quiet: bool = False) -> None:
        """Print to standard error, so that a command's result can be piped; print nothing when `quiet`."""
        self.console = rich.console.Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)

    @contextlib.contextmanager
    def step(self, text: str) -> Iterator[None]:
        """Show `text` while the block runs, and its duration when it has ended."""
        started = time.monotonic()
        columns = (rich.progress.SpinnerColumn(), "{task.description}", rich.progress.TimeElapsedColumn())
        with rich.progress.Progress(
            *columns, console=self.console, transient=True, disable=not self.console.is_terminal
        ) as progress:
            progress.add_task(text, total=None)
            try:
                yield
            except BaseException:
                self.console.print(f"[red]✗[/] {text}")
                raise
        self.console.print(f"[green]✓[/] {text} [dim]{time.monotonic() - started:.1f} s[/]")

    def say(self, text: str) -> None:
        """Print one line."""
        self.console.print(text)

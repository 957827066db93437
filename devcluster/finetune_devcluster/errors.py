"""The errors of the devcluster.

A person who starts a cluster can do something about each of them, so each message names the thing, its state and the
next step. Everything else that goes wrong here is a bug and keeps its own traceback.

    DevclusterError
    ├── MissingProgramError   a program, a right or a Go toolchain is not there; `command` puts it there
    ├── CommandError          a program ended with an error; carries the end of what it printed
    ├── ProcessEndedError     a program that should keep running ended; carries the end of its log
    └── DeadlineError         a condition did not come true in time; carries what was seen last
"""

from __future__ import annotations

__all__ = ["CommandError", "DeadlineError", "DevclusterError", "MissingProgramError", "ProcessEndedError"]


class DevclusterError(Exception):
    """Anything that keeps a cluster from doing what was asked."""


class MissingProgramError(DevclusterError):
    """Something this machine lacks; `command` is the exact line that provides it."""

    def __init__(self, missing: str, command: str) -> None:
        """Keep the command apart, so that tests can print it as the reason for a skip."""
        super().__init__(f"{missing} must be on this machine; run: {command}")
        self.command = command


class CommandError(DevclusterError):
    """A program that was run to its end failed."""


class ProcessEndedError(DevclusterError):
    """A background program ended although nobody stopped it."""


class DeadlineError(DevclusterError):
    """A condition was not met before its deadline."""

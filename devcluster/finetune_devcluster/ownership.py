"""Which processes of this machine belong to a cluster, found by looking at the machine.

Programs the devcluster starts carry the cluster's name in their environment and pass it on to what they start, such as
containerd's shims; containers do not, but live in the cluster's control group. So everything is found without records.
"""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path

from finetune_devcluster import cgroups, waiting

_VARIABLE = "FINETUNE_DEVCLUSTER"
_KILL_DEADLINE_SECONDS = 20.0  # a killed process ends at once unless the kernel waits for a disk; a guess


@dataclass(frozen=True)
class OwnedProcess:
    """A process of a cluster."""

    pid: int
    command: str
    is_contained: bool
    """Whether it runs in a container, and not on the machine as the cluster's own programs do."""


def mark(name: str) -> dict[str, str]:
    """Return the environment that marks a process, and all it starts, as the cluster's."""
    return {_VARIABLE: name}


def list_processes(name: str) -> list[OwnedProcess]:
    """Return the processes of the cluster `name`, those of its containers first, also those that wait to be reaped."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        # Other users' processes cannot be read, and a process may end while it is looked at.
        with contextlib.suppress(OSError):
            is_contained = _is_contained(entry, name)
            if is_contained or _is_marked(entry, name):
                command = (entry / "comm").read_text().strip()
                found.append(OwnedProcess(int(entry.name), command, is_contained))
    return sorted(found, key=lambda process: not process.is_contained)


def kill_all(name: str) -> None:
    """Kill every process of the cluster `name` and wait until none is left.

    Raises:
        DeadlineError: some did not end.
    """

    def check_gone() -> None:
        # Again and again: a process may start another while it is being killed.
        if not (left := list_processes(name)):
            return
        contained = [process for process in left if process.is_contained]
        # Containers first: their shims reap them, and until then their control groups cannot be removed.
        for process in contained or left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(process.pid, os.WNOHANG)
        raise waiting.NotYetError(", ".join(f"{process.command} ({process.pid})" for process in left))

    waiting.wait_for(f"end of all processes of {name}", check_gone, _KILL_DEADLINE_SECONDS)


def _is_contained(entry: Path, name: str) -> bool:
    if os.geteuid() != 0:
        return False  # only root's clusters have containers; one of the same name is another user's
    paths = [line.rpartition(":")[2].split("/") for line in (entry / "cgroup").read_text().splitlines()]
    return any(cgroups.group_name(name) in path for path in paths)


def _is_marked(entry: Path, name: str) -> bool:
    is_ours = entry.stat().st_uid == os.geteuid()  # another user may have a cluster of the same name
    return is_ours and f"{_VARIABLE}={name}".encode() in (entry / "environ").read_bytes().split(b"\0")

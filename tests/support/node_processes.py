"""Processes of a cluster's pods as the node sees them: found by their control group, never those of another cluster.

What a test does to them no API can do: SIGKILL to one of several processes, SIGSTOP to all.
"""

import os
import signal
from collections.abc import Callable
from pathlib import Path

from finetune_devcluster import cgroups

Arguments = list[bytes]


def find_processes(cluster_name: str, is_wanted: Callable[[Arguments], bool], pod_uid: str = "") -> list[int]:
    """Return process ids in the pods of a cluster, or in one pod, the oldest first.

    Args:
        cluster_name: of the devcluster.
        is_wanted: by the arguments of the process.
        pod_uid: empty: of all pods.
    """
    group = f"/{cgroups.group_name(cluster_name)}/kubepods/"
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (directory / "cmdline").read_bytes().split(b"\0")
            path = (directory / "cgroup").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        # One that has ended and that nobody has reaped yet has no arguments.
        if group in path and f"pod{pod_uid}" in path and arguments[0] and is_wanted(arguments):
            found.append(int(directory.name))
    return sorted(found)


def find_operators(cluster_name: str) -> list[int]:
    """Return the operator's process ids."""
    return find_processes(cluster_name, lambda arguments: b"finetune_operator" in arguments)


def find_trainers(cluster_name: str, pod_uid: str) -> list[int]:
    """Return the process ids of a trainer pod: the launcher first, then its ranks and whatever those started."""
    return find_processes(cluster_name, lambda arguments: b"pause" not in arguments[0], pod_uid)


def find_parent(process: int) -> int:
    """Return the process id of a process's parent: of a pod's launcher, the runtime's shim."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("PPid:"))


def send(processes: list[int], number: signal.Signals) -> None:
    """Send a signal to each process that is still there."""
    for process in processes:
        try:
            os.kill(process, number)
        except ProcessLookupError:
            continue

"""What is left on this machine of a cluster that was stopped: the answer must be nothing.

Looks at the machine itself and not at records, so that it also finds what a crash or a bug of ours forgot. Packet
filter rules need no look: they live in the network namespace, which is gone with its last process.
"""

from __future__ import annotations

from pathlib import Path

from finetune_devcluster import cgroups, network, ownership, state


def find_leftovers(name: str) -> list[str]:
    """Return one line per process, mount, interface, control group or folder that belongs to the cluster `name`."""
    directory = state.state_directory(name)
    return [
        *(f"process {process.pid} ({process.command})" for process in ownership.list_processes(name)),
        *(f"mount {mount}" for mount in _list_mounts(directory)),
        *(f"interface {interface}" for interface in network.list_interfaces(name)),
        *(f"control group {group}" for group in cgroups.list_groups(name)),
        *([f"folder {directory}"] if directory.exists() else []),
    ]


def _list_mounts(directory: Path) -> list[Path]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    # Field 5 is the mount point, with spaces written as \040 (proc(5)).
    points = [Path(line.split()[4].replace("\\040", " ")) for line in lines]
    return [point for point in points if point.is_relative_to(directory)]

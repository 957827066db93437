"""The control groups of a node-level cluster: one subtree per cluster, in every hierarchy the machine has.

Works with version 1 (one hierarchy per controller) and version 2 (one for all). Everything below `finetune-NAME` is the
cluster's; nothing outside of it is written to, except that version 2 is asked to pass its controllers down.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from finetune_devcluster import waiting

_ROOT = Path("/sys/fs/cgroup")

_REMOVE_DEADLINE_SECONDS = 20.0  # as long as the first process of the machine takes to reap an orphan; a guess

# What the kubelet counts and limits. Where they are not passed down, pods have no limits.
_CONTROLLERS_V2 = ("cpu", "cpuset", "io", "memory", "pids")


def group_name(name: str) -> str:
    """Return the name of the subtree of the cluster `name`."""
    return f"finetune-{name}"


def create(name: str) -> None:
    """Make the subtree of the cluster `name`, ready for the kubelet."""
    for hierarchy in _hierarchies():
        group = hierarchy / group_name(name)
        if _is_v2(hierarchy):
            for controller in _CONTROLLERS_V2:
                with contextlib.suppress(OSError):  # not every kernel has all; the kubelet names what it misses
                    (hierarchy / "cgroup.subtree_control").write_text(f"+{controller}")
        group.mkdir(exist_ok=True)
        if (group / "cpuset.mems").exists() and not _is_v2(hierarchy):
            # Version 1 starts them empty, and an empty set takes no process.
            for file in ("cpuset.cpus", "cpuset.mems"):
                (group / file).write_text((hierarchy / file).read_text())


def list_groups(name: str) -> list[Path]:
    """Return all groups of the cluster `name`, the innermost first."""
    if os.geteuid() != 0:
        return []  # only root's clusters have any; one of the same name is not ours
    tops = [hierarchy / group_name(name) for hierarchy in _hierarchies()]
    groups = [path for top in tops if top.is_dir() for path in (top, *top.rglob("*")) if path.is_dir()]
    return sorted(groups, reverse=True)


def remove(name: str) -> None:
    """Take the groups of the cluster `name` away; its processes have been killed.

    Raises:
        DeadlineError: something still runs in them.
    """

    def check_gone() -> None:
        for group in list_groups(name):
            with contextlib.suppress(OSError):
                group.rmdir()
        # A killed process counts until its parent has taken note of its end.
        if left := list_groups(name):
            raise waiting.NotYetError(f"{left[0]} is busy")

    waiting.wait_for(f"end of the control groups of {name}", check_gone, _REMOVE_DEADLINE_SECONDS)


def _hierarchies() -> list[Path]:
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    points = [Path(point) for _, point, kind, *_ in mounts if kind in {"cgroup", "cgroup2"}]
    return [point for point in points if point.is_relative_to(_ROOT)]


def _is_v2(hierarchy: Path) -> bool:
    return (hierarchy / "cgroup.controllers").exists()

"""What is known about a cluster between two calls: its name, level, addresses and folder.

One small JSON file per cluster in its state folder; the folder is the cluster. Root's clusters lie under /var/lib,
other users' in their cache. Must hold no secrets: those are files of their own beside it.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

from finetune_devcluster import cache

Level = Literal["control-plane", "node"]

# Names become part of a network namespace, of cgroups and of socket paths, which the kernel cuts at 107 characters.
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")


@dataclass(frozen=True)
class ClusterState:
    """The facts of one cluster that were chosen when it started."""

    name: str
    level: Level
    api_url: str
    network_index: int = 0
    """Which of the address blocks a node-level cluster has (1 to 250); 0 for a control plane on loopback."""


def clusters_directory() -> Path:
    """Return the folder with one state folder per cluster of this user."""
    if os.geteuid() == 0:
        return Path("/var/lib/finetune-devcluster")
    return cache.cache_directory() / "clusters"


def state_directory(name: str) -> Path:
    """Return the state folder of the cluster `name`, which need not exist.

    Raises:
        ValueError: no cluster may have that name.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"--name ({name}) must be 1 to 32 of a-z, 0-9 and -, and begin and end with a letter or digit")
    return clusters_directory() / name


def list_names() -> list[str]:
    """Return the names of all clusters of this user, also of broken ones."""
    folder = clusters_directory()
    return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def save_state(state: ClusterState) -> None:
    """Save `state` in the cluster's folder."""
    directory = state_directory(state.name)
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o755)
    (directory / "cluster.json").write_text(json.dumps(asdict(state), indent=2))


def load_state(name: str) -> ClusterState | None:
    """Return the saved state of `name`, None when there is no such cluster."""
    path = state_directory(name) / "cluster.json"
    if not path.exists():
        return None
    # A cluster outlives a change of this checkout: what is not known any more is left out.
    names = {field.name for field in fields(ClusterState)}
    return ClusterState(**{key: value for key, value in json.loads(path.read_text()).items() if key in names})

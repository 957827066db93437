"""A cluster as a whole: start it, find it again, stop it.

`start` is idempotent: a cluster that works is returned as it is, a broken one is removed and made anew. `stop` removes
everything the start made, also after a crash half-way, because it looks at what is there and not at what was planned.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from finetune_devcluster import (
    binaries,
    cache,
    control_plane,
    errors,
    network,
    node_level,
    processes,
    progress,
    sandbox,
    state,
)
from finetune_devcluster import registry as image_registry
from finetune_devcluster import s3 as s3_server


@dataclass(frozen=True)
class Cluster:
    """A running cluster."""

    name: str
    level: state.Level | Literal["existing"]
    kubeconfig: Path
    """The administrator's; usable by every client on this machine."""
    s3: s3_server.S3Server | None = None
    """The S3 server of a node-level cluster."""
    registry: image_registry.Registry | None = None
    """The image registry of a node-level cluster."""


def start(name: str, level: state.Level, *, steps: progress.Steps | None = None, install: bool = False) -> Cluster:
    """Start the cluster `name`, or return it when it runs.

    Args:
        name: 1 to 32 of a-z, 0-9 and `-`.
        level: `control-plane` needs no root and has no node; `node` runs pods.
        steps: Where to show what is done; silent by default.
        install: With root, install missing Debian packages instead of raising.

    Raises:
        MissingProgramError: the machine lacks something; the error carries the command that installs it.
        DevclusterError: the cluster did not come up; nothing of it is left.
    """
    steps = steps or progress.Steps(quiet=True)
    with cache.locked(f"cluster-{name}"):
        known = state.load_state(name)
        if known and known.level != level and is_healthy(known):
            hint = f"run `down --name {name}` first, or choose another --name"
            raise errors.DevclusterError(f"cluster {name} (level {known.level}) must have level {level}; {hint}")
        if known and is_healthy(known):
            return _cluster(known)
        _remove(name, steps)
        if level == "node":
            node_level.check_machine(install=install)
        try:
            return _start(name, level, binaries.build(steps, install=install), steps)
        except BaseException:  # Ctrl-C too: whatever was begun is taken back
            _remove(name, steps)
            raise


def stop(name: str, *, steps: progress.Steps | None = None) -> None:
    """Remove the cluster `name` with everything it made; no such cluster is fine too."""
    lock = f"cluster-{name}"
    with cache.locked(lock):
        _remove(name, steps or progress.Steps(quiet=True))
        cache.lock_path(lock).unlink()


def load(name: str) -> Cluster:
    """Return the cluster `name`, started by anybody.

    Raises:
        DevclusterError: there is none, or it does not work.
    """
    known = state.load_state(name)
    if known is None or not is_healthy(known):
        raise errors.DevclusterError(f"cluster {name} (not running) must run; start it with `up --name {name}`")
    return _cluster(known)


def use_existing(kubeconfig: Path) -> Cluster:
    """Return any other cluster, such as kind's or a real one; nothing of it is started or stopped here."""
    return Cluster("existing", "existing", kubeconfig)


def is_healthy(known: state.ClusterState) -> bool:
    """Tell whether every program of the cluster runs and its API server is ready."""
    directory = state.state_directory(known.name)
    folders = [directory, directory / node_level.S3_FOLDER]
    recorded = [process for folder in folders for process in processes.ProcessGroup(folder).load()]
    return all(map(processes.is_running, recorded)) and control_plane.is_ready(directory, known.api_url)


def _start(name: str, level: state.Level, programs: Path, steps: progress.Steps) -> Cluster:
    directory = state.state_directory(name)
    directory.mkdir(parents=True)
    if level == "node":
        known = node_level.start(directory, name, programs, steps)
    else:
        addresses = control_plane.loopback_addresses()
        with steps.step("start the control plane"):
            control_plane.start(directory, programs, processes.ProcessGroup(directory, owner=name), addresses)
        known = state.ClusterState(name, level, addresses.api_url)
    state.save_state(known)
    return _cluster(known)


def _cluster(known: state.ClusterState) -> Cluster:
    directory = state.state_directory(known.name)
    config = directory / "kubeconfig"
    if known.level == "control-plane":
        return Cluster(known.name, known.level, config)
    node_address = network.Network(known.network_index).node_address
    server = s3_server.load(directory / node_level.S3_FOLDER, node_address, s3_server.CLUSTER_PORT)
    return Cluster(known.name, known.level, config, server, image_registry.describe(node_address))


def _remove(name: str, steps: progress.Steps) -> None:
    directory = state.state_directory(name)
    if not directory.exists():
        return
    with steps.step(f"remove cluster {name}"):
        # At once: what these programs would save is about to be deleted.
        processes.ProcessGroup(directory).stop(0)
        sandbox.remove(name)
        for path in s3_server.sockets(directory / node_level.S3_FOLDER):
            path.unlink(missing_ok=True)
        # The last: while it is there, `status` shows the cluster and `down` finds it.
        shutil.rmtree(directory)

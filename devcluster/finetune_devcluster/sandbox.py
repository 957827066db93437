"""The private mounts and the private network in which a node-level cluster runs.

One process holds a mount and a network namespace; every program of the cluster enters them. What the programs write to
the machine's fixed places (/run, /var/lib/kubelet, /var/lib/cni, /var/log) lands in the cluster's own folder or
in memory, so clusters do not see each other, and all mounts, interfaces and packet filter rules vanish with the last
process. The only thing on the machine's side is one end of a veth pair.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from finetune_devcluster import cgroups, commands, errors, network, ownership, processes, waiting

HOLDER = "sandbox"

# What the programs have no option for, and where it goes. Made on the machine when absent: a mount needs its place.
_PRIVATE_FOLDERS = {
    "/var/lib/cni": "cni-state",
    "/var/lib/kubelet": "kubelet",
    "/var/log/containers": "container-links",
    "/var/log/pods": "pod-logs",
}


@dataclass(frozen=True)
class Sandbox:
    """A running sandbox."""

    directory: Path
    net: network.Network
    group: processes.ProcessGroup
    """Starts programs inside."""

    def run(self, *command: str) -> str:
        """Run `command` inside to its end and return its output.

        Raises:
            CommandError: it failed.
        """
        return commands.run([*self.group.prefix, *command])


def create(directory: Path, name: str, pause: Path) -> Sandbox:
    """Make the namespaces of the cluster `name`, mount its folders, join its network to the machine's."""
    for place, folder in _PRIVATE_FOLDERS.items():
        Path(place).mkdir(parents=True, exist_ok=True)
        (directory / folder).mkdir(parents=True, exist_ok=True)
    outside = processes.ProcessGroup(directory, owner=name)
    command = ["unshare", "--mount", "--net", "--propagation=private", str(pause)]
    holder = outside.start(HOLDER, command)
    waiting.wait_for("sandbox", lambda: _check_entered(holder.pid, pause), 10.0)
    prefix = _prefix(holder.pid, directory)
    commands.run([*prefix, "sh", "-ec", "\n".join(_mount_lines(directory))])
    return Sandbox(directory, network.connect(name, holder.pid), processes.ProcessGroup(directory, prefix, name))


def load(directory: Path, name: str, network_index: int) -> Sandbox:
    """Return the sandbox that another process made.

    Raises:
        DevclusterError: it is gone.
    """
    outside = processes.ProcessGroup(directory, owner=name)
    holder = next((process for process in outside.load() if process.name == HOLDER), None)
    if holder is None or not processes.is_running(holder):
        raise errors.DevclusterError(f"sandbox of cluster {name} (not running) must run; run `up --name {name}`")
    group = processes.ProcessGroup(directory, _prefix(holder.pid, directory), name)
    return Sandbox(directory, network.Network(network_index), group)


def remove(name: str) -> None:
    """End every process of the cluster `name`, whoever started it, and take its interface and cgroups away."""
    ownership.kill_all(name)
    network.remove(name)
    cgroups.remove(name)


def _prefix(holder_pid: int, directory: Path) -> tuple[str, ...]:
    # A folder of its own for temporary files, by variable: a mount over /tmp would hide a checkout that lies there.
    temporary = directory / "tmp"
    temporary.mkdir(exist_ok=True)
    return ("nsenter", f"--target={holder_pid}", "--mount", "--net", "--", "env", f"TMPDIR={temporary}")


def _mount_lines(directory: Path) -> list[str]:
    binds = [f"mount --bind '{directory / folder}' {place}" for place, folder in _PRIVATE_FOLDERS.items()]
    return [
        # Shared among the processes inside: what the kubelet mounts, containerd must see.
        "mount --make-rshared /",
        "mount -t tmpfs -o mode=755,size=64m tmpfs /run",
        *binds,
    ]


def _check_entered(pid: int, program: Path) -> None:
    # Until unshare has done its work and become the program, the namespaces are still the machine's.
    if str(program).encode() not in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:1]:
        raise waiting.NotYetError("still outside")

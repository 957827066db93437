"""containerd and the network plugins of a node-level cluster, from Debian's packages.

Pods are wired point to point (`ptp`) and not by a bridge: a reply between two pods then passes the node's own packet
filter, so Services work without the kernel's bridge filter being switched on.
"""

from __future__ import annotations

import json
from pathlib import Path

from finetune_devcluster import cache, errors, network, programs, sandbox, scratch_images, waiting

PROGRAMS = ("containerd", "ctr", "runc", "ptp", "iptables", "nsenter", "ip")
SOCKET = "/run/containerd/containerd.sock"
PAUSE_IMAGE = "devcluster.local/pause:1"
COREDNS_IMAGE = "devcluster.local/coredns:1"

_READY_DEADLINE_SECONDS = 60.0  # measured: 0.5 s on an idle machine, 2026-11

# restrict_oom_score_adj: without the right to lower it (CAP_SYS_RESOURCE) every pod sandbox fails otherwise.
_CONFIG = """\
version = 2
root = "{directory}/containerd"
state = "/run/containerd"
disabled_plugins = [
  "io.containerd.internal.v1.opt",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
]
[grpc]
  address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = true
  sandbox_image = "{pause_image}"
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugin_directory}"
    conf_dir = "{directory}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    discard_unpacked_layers = true
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
"""


def launch(box: sandbox.Sandbox) -> None:
    """Start containerd."""
    plugins = programs.find_program("ptp").parent
    config = box.directory / "containerd.toml"
    config.write_text(
        _CONFIG.format(directory=box.directory, socket=SOCKET, pause_image=PAUSE_IMAGE, plugin_directory=plugins)
    )
    (box.directory / "cni").mkdir()
    (box.directory / "cni" / "10-devcluster.conflist").write_text(json.dumps(_network_config(box.net)))
    box.group.start("containerd", [str(programs.find_program("containerd")), f"--config={config}"])


def wait_until_ready(box: sandbox.Sandbox, binaries: Path) -> None:
    """Wait until containerd answers, and give it the images no registry has."""
    waiting.wait_for("containerd", lambda: _check_answers(box), _READY_DEADLINE_SECONDS)
    for program, image in (("pause", PAUSE_IMAGE), ("coredns", COREDNS_IMAGE)):
        _import_image(box, binaries / program, image)


def _check_answers(box: sandbox.Sandbox) -> None:
    box.group.check_running("containerd")
    try:
        box.run("ctr", f"--address={SOCKET}", "version")
    except errors.CommandError as error:
        raise waiting.NotYetError(str(error)) from error


def _import_image(box: sandbox.Sandbox, program: Path, image: str) -> None:
    # Beside the programs, whose folder is named after what they are built from.
    archive = program.with_suffix(".tar")
    if not archive.exists():
        with cache.locked("scratch-images"):
            draft = program.with_suffix(".tar.new")
            scratch_images.save_image(program, image, draft)
            draft.rename(archive)
    box.run("ctr", f"--address={SOCKET}", "--namespace=k8s.io", "images", "import", "--no-unpack", str(archive))


def _network_config(net: network.Network) -> dict[str, object]:
    return {
        "cniVersion": "1.0.0",
        "name": "devcluster",
        "plugins": [
            {
                "type": "ptp",
                "ipMasq": True,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": net.pod_cidr}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }

"""The start of a whole one-node cluster: control plane, node, name service, image registry and S3 server.

The order is what makes it fast: whatever needs nobody else is started first and waited for last.
"""

from __future__ import annotations

from pathlib import Path

from finetune_devcluster import (
    api_client,
    container_runtime,
    control_plane,
    dns,
    node,
    processes,
    programs,
    progress,
    registry,
    s3,
    sandbox,
    state,
    waiting,
)

S3_FOLDER = "s3"

# Measured: 3 s after the node is Ready, 2026-11, two cores; the rest is room for a loaded machine.
_DNS_DEADLINE_SECONDS = 60.0


def check_machine(*, install: bool) -> None:
    """Check that this machine can run a node, before anything is started.

    Raises:
        MissingProgramError: it lacks root or a program; the error carries the command that helps.
    """
    programs.require_root("the node level makes network namespaces and mounts")
    programs.require_programs([*container_runtime.PROGRAMS, *registry.PROGRAMS, "weed"], install=install)


def start(directory: Path, name: str, binaries: Path, steps: progress.Steps) -> state.ClusterState:
    """Start everything in `directory` and wait until pods run, find each other by name, and reach images and S3."""
    with steps.step("make the network and the mounts"):
        box = sandbox.create(directory, name, binaries / "pause")
        addresses = control_plane.node_addresses(box.net)
        container_runtime.launch(box)
        registry.launch(box)
        s3_group = processes.ProcessGroup(directory / S3_FOLDER, box.group.prefix, name)
        server = s3.launch(s3_group, box.net.node_address, s3.CLUSTER_PORT)
    with steps.step("start the control plane"):
        admin_config = control_plane.start(directory, binaries, box.group, addresses)
    with steps.step("start the node"):
        container_runtime.wait_until_ready(box, binaries)
        node.launch(box, name, binaries, addresses.api_url)
        manifests = dns.build_manifests(container_runtime.COREDNS_IMAGE, box.net.dns_address)
        api_client.apply_manifests(admin_config, manifests)
        node.wait_until_ready(box, admin_config)
    with steps.step("start DNS, the image registry and S3"):
        registry.wait_until_ready(box)
        s3.wait_until_ready(server, s3_group)
        waiting.wait_for(
            "DNS",
            lambda: api_client.check_deployment_available(admin_config, dns.NAMESPACE, dns.DEPLOYMENT),
            _DNS_DEADLINE_SECONDS,
        )
    return state.ClusterState(name, "node", addresses.api_url, box.net.index)

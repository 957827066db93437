"""Addresses of a node-level cluster and the veth pair that joins it to this machine.

Each cluster has a block of addresses by its index N: 10.245.N.0/30 for the pair, 10.244.N.0/24 for pods, 10.96.N.0/24
for Services. The machine gets routes to all three through the pair, so tests reach pods and Services directly. Nothing
else of the machine's network is touched, no packet is forwarded or translated for it, and no packet leaves it.
"""

from __future__ import annotations

import ipaddress
import json
import os
from dataclasses import dataclass
from pathlib import Path

from finetune_devcluster import cache, commands, errors

_MAX_INDEX = 250


@dataclass(frozen=True)
class Network:
    """The addresses of the cluster with one index."""

    index: int

    @property
    def host_address(self) -> str:
        """This machine's end of the pair, as seen from the cluster."""
        return f"10.245.{self.index}.1"

    @property
    def node_address(self) -> str:
        """The node: API server, registry, S3."""
        return f"10.245.{self.index}.2"

    @property
    def pod_cidr(self) -> str:
        """Addresses of pods."""
        return f"10.244.{self.index}.0/24"

    @property
    def service_cidr(self) -> str:
        """Addresses of Services."""
        return f"10.96.{self.index}.0/24"

    @property
    def api_service_address(self) -> str:
        """The Service `kubernetes`: always the first address."""
        return f"10.96.{self.index}.1"

    @property
    def dns_address(self) -> str:
        """The Service `kube-dns`; kubeadm takes the tenth too."""
        return f"10.96.{self.index}.10"

    @property
    def host_interface(self) -> str:
        """Name of this machine's end of the pair."""
        return f"ft{self.index}-host"


def connect(name: str, holder_pid: int) -> Network:
    """Join the network namespace of `holder_pid` to this machine under a free index."""
    with cache.locked("network"):
        net = Network(_choose_index())
        pair = ["ip", "link", "add", net.host_interface, "type", "veth", "peer", "name", "node0", "netns"]
        commands.run([*pair, str(holder_pid)])
    # The alias tells whose it is, also when nothing else of the cluster is left.
    commands.run(["ip", "link", "set", net.host_interface, "alias", _alias(name), "up"])
    commands.run(["ip", "address", "add", f"{net.host_address}/30", "dev", net.host_interface])
    inside = ["nsenter", f"--target={holder_pid}", "--net", "--"]
    commands.run([*inside, "ip", "address", "add", f"{net.node_address}/30", "dev", "node0"])
    commands.run([*inside, "ip", "link", "set", "node0", "up"])
    commands.run([*inside, "ip", "link", "set", "lo", "up"])
    # kube-proxy looks for the node's address on the interface of the default route.
    commands.run([*inside, "ip", "route", "add", "default", "via", net.host_address])
    commands.run([*inside, "sysctl", "-qw", "net.ipv4.ip_forward=1"])
    for cidr in (net.pod_cidr, net.service_cidr):
        commands.run(["ip", "route", "add", cidr, "via", net.node_address])
    return net


def list_interfaces(name: str) -> list[str]:
    """Return the interfaces of this machine that belong to the cluster `name`."""
    if os.geteuid() != 0:
        return []  # only root's clusters have a network; one of the same name is not ours
    aliases = Path("/sys/class/net").glob("*/ifalias")
    return [path.parent.name for path in aliases if path.read_text().strip() == _alias(name)]


def remove(name: str) -> None:
    """Take the cluster's interfaces away; routes go with them."""
    for interface in list_interfaces(name):
        try:
            commands.run(["ip", "link", "delete", interface])
        except errors.CommandError:
            # With its last process the namespace takes the pair away itself, at any moment.
            if interface in list_interfaces(name):
                raise


def _alias(name: str) -> str:
    return f"finetune-devcluster/{name}"


def _choose_index() -> int:
    routes = json.loads(commands.run(["ip", "-json", "route", "show", "table", "all"]))
    used = [_parse_route(str(route["dst"])) for route in routes]
    for index in range(1, _MAX_INDEX + 1):
        net = Network(index)
        blocks = [ipaddress.ip_network(cidr) for cidr in (f"10.245.{index}.0/30", net.pod_cidr, net.service_cidr)]
        if not any(block.overlaps(other) for block in blocks for other in used if other):
            return index
    raise errors.DevclusterError(
        f"addresses 10.244.N.0/24, 10.245.N.0/30 and 10.96.N.0/24 (all in use) must be free for one N of 1 to "
        f"{_MAX_INDEX}; stop a cluster or leave the VPN that routes them"
    )


def _parse_route(destination: str) -> ipaddress.IPv4Network | None:
    try:
        return ipaddress.IPv4Network(destination)
    except ValueError:
        return None  # `default`, or an IPv6 route

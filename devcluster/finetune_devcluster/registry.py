"""The image registry of a node-level cluster: Debian's docker-registry, over plain HTTP inside the machine.

The kubelet pulls `127.0.0.1:5000/…`, which containerd takes as insecure without being told; this machine pushes to the
same registry at the node's address. What is stored lies in the cache and outlives the cluster: pushing an image again
to a new cluster sends nothing. Must never listen where another machine could reach it.
"""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from pathlib import Path

from finetune_devcluster import cache, programs, sandbox, waiting

PORT = 5000
PROGRAMS = ("docker-registry",)

_PROCESS_NAME = "registry"
_READY_DEADLINE_SECONDS = 30.0  # measured: 0.2 s on an idle machine, 2026-11


@dataclass(frozen=True)
class Registry:
    """A running registry."""

    push_address: str
    """`host:port` for tools on this machine."""
    pull_address: str
    """`host:port` as it stands in a pod's image."""


def storage_directory() -> Path:
    """Return where the images of all clusters of this user lie."""
    return cache.cache_directory() / "registry"


def describe(node_address: str) -> Registry:
    """Return the registry of the cluster whose node has `node_address`."""
    return Registry(f"{node_address}:{PORT}", f"127.0.0.1:{PORT}")


def build_config() -> dict[str, object]:
    """Return the configuration of every registry here; all share one storage."""
    return {
        "version": 0.1,
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(storage_directory())}, "delete": {"enabled": True}},
        # Every address of the cluster's own network: loopback for containerd, the pair for this machine.
        "http": {"addr": f":{PORT}"},
    }


def launch(box: sandbox.Sandbox) -> Registry:
    """Start the registry."""
    described = describe(box.net.node_address)
    storage_directory().mkdir(parents=True, exist_ok=True)
    config = box.directory / "registry.yaml"
    config.write_text(json.dumps(build_config()))
    box.group.start(_PROCESS_NAME, [str(programs.find_program("docker-registry")), "serve", str(config)])
    return described


def wait_until_ready(box: sandbox.Sandbox) -> None:
    """Wait until the registry answers."""
    address = describe(box.net.node_address).push_address

    def check() -> None:
        box.group.check_running(_PROCESS_NAME)
        _check_answers(address)

    waiting.wait_for(f"registry at {address}", check, _READY_DEADLINE_SECONDS)


def _check_answers(address: str) -> None:
    connection = http.client.HTTPConnection(address, timeout=5)
    try:
        connection.request("GET", "/v2/")
        if (status := connection.getresponse().status) != http.HTTPStatus.OK:
            raise waiting.NotYetError(f"status {status}")
    except OSError as error:
        raise waiting.NotYetError(str(error)) from error
    finally:
        connection.close()

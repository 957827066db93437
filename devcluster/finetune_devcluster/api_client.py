"""Calls of the devcluster to its own API server: the few objects a cluster needs to be usable.

The only module here that uses a Kubernetes client library. Must know nothing of what is installed in the cluster later.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx2
import lightkube
from lightkube import codecs
from lightkube.core import exceptions
from lightkube.models import meta_v1
from lightkube.resources import apps_v1, core_v1

from finetune_devcluster import waiting

_FIELD_MANAGER = "finetune-devcluster"
_NAMESPACE_DEADLINE_SECONDS = 30.0  # measured: 0.1 s on an idle machine, 2026-11


@contextlib.contextmanager
def connect(kubeconfig: Path) -> Iterator[lightkube.Client]:
    """Yield a client for the cluster of `kubeconfig`; proxies of the environment are left out."""
    config = lightkube.KubeConfig.from_file(kubeconfig)
    with lightkube.Client(config=config, field_manager=_FIELD_MANAGER, trust_env=False) as client:
        yield client


def apply_manifests(kubeconfig: Path, manifests: Sequence[Mapping[str, Any]]) -> None:
    """Create or update `manifests` in their order."""
    with connect(kubeconfig) as client:
        for manifest in manifests:
            client.apply(codecs.from_dict(dict(manifest)), force=True)


def has_default_service_account(kubeconfig: Path, namespace: str) -> bool:
    """Tell whether pods can be created in `namespace`."""
    with connect(kubeconfig) as client:
        try:
            client.get(core_v1.ServiceAccount, "default", namespace=namespace)
        except (exceptions.ApiError, httpx2.TransportError):
            return False
    return True


def create_namespace(kubeconfig: Path, name: str, labels: Mapping[str, str] | None = None) -> None:
    """Create a namespace and wait until pods can be created in it."""
    with connect(kubeconfig) as client:
        client.create(core_v1.Namespace(metadata=meta_v1.ObjectMeta(name=name, labels=dict(labels or {}))))

    def check_account() -> None:
        if not has_default_service_account(kubeconfig, name):
            raise waiting.NotYetError("no default service account")

    waiting.wait_for(f"namespace {name}", check_account, _NAMESPACE_DEADLINE_SECONDS)


def delete_namespace(kubeconfig: Path, name: str) -> None:
    """Delete a namespace with everything in it, without waiting for the end of it."""
    with connect(kubeconfig) as client:
        client.delete(core_v1.Namespace, name)


def check_node_ready(kubeconfig: Path, node_name: str) -> None:
    """Raise `NotYetError` with the kubelet's own reason unless the node takes pods."""
    with connect(kubeconfig) as client:
        try:
            node = client.get(core_v1.Node, node_name)
        except exceptions.ApiError as error:
            raise waiting.NotYetError(error.status.message or "no node") from error
    conditions = (node.status.conditions if node.status else None) or []
    ready = next((condition for condition in conditions if condition.type == "Ready"), None)
    if ready is None or ready.status != "True":
        raise waiting.NotYetError(ready.message or "not ready" if ready else "no condition Ready")


def check_deployment_available(kubeconfig: Path, namespace: str, name: str) -> None:
    """Raise `NotYetError` unless a pod of the Deployment takes requests."""
    with connect(kubeconfig) as client:
        deployment = client.get(apps_v1.Deployment, name, namespace=namespace)
    if not (deployment.status and deployment.status.availableReplicas):
        raise waiting.NotYetError(f"{namespace}/{name} has no available pod")


def patch_node_resources(kubeconfig: Path, node_name: str, resources: Mapping[str, int]) -> None:
    """Let the node say it has `resources`, such as {"nvidia.com/gpu": 8}.

    The kubelet leaves resources it does not know alone, so the patch outlives its own updates.
    """
    quantities = {name: str(count) for name, count in resources.items()}
    patch = {"status": {"capacity": quantities, "allocatable": quantities}}
    with connect(kubeconfig) as client:
        client.patch(core_v1.Node.Status, node_name, patch)

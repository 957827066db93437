"""Calls to an API server with plain dictionaries, and the few objects a cluster needs to be usable.

The one place of the devcluster, the demo and the tests where the official client is made. `Client` is its dynamic
client without the wrapping of answers: a manifest goes in as YAML has it and comes out the same way. What the API
server refuses is raised as `kubernetes.client.ApiException`, one that does not answer as `HTTPError` of `urllib3`.
Must know nothing of what is installed in the cluster later.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import kubernetes
import urllib3.exceptions
from kubernetes import dynamic

from finetune_devcluster import waiting

Manifest = dict[str, Any]

_FIELD_MANAGER = "finetune-devcluster"
_MERGE_PATCH = "application/merge-patch+json"
_NAMESPACE_DEADLINE_SECONDS = 30.0  # measured: 0.1 s on an idle machine, 2026-11


class Kind(NamedTuple):
    """What a manifest says it is: `("batch/v1", "Job")`."""

    api_version: str
    kind: str


NAMESPACE = Kind("v1", "Namespace")
NODE = Kind("v1", "Node")
POD = Kind("v1", "Pod")
SERVICE_ACCOUNT = Kind("v1", "ServiceAccount")
DEPLOYMENT = Kind("apps/v1", "Deployment")


class Client:
    """The official dynamic client, plain dictionaries in and out. Every call raises `ApiException` for a refusal."""

    def __init__(self, client: dynamic.DynamicClient) -> None:
        self._client = client

    def create(self, manifest: Mapping[str, Any]) -> Manifest:
        """Create an object; return it as it is stored."""
        return self._call(_kind_of(manifest), "create", body=manifest, namespace=_namespace_of(manifest))

    def apply(self, manifest: Mapping[str, Any]) -> Manifest:
        """Create or update an object by server-side apply, with force."""
        return self._call(
            _kind_of(manifest),
            "server_side_apply",
            body=manifest,
            namespace=_namespace_of(manifest),
            field_manager=_FIELD_MANAGER,
            force_conflicts=True,
        )

    def replace(self, manifest: Mapping[str, Any]) -> Manifest:
        """Replace an object, at the resourceVersion that `manifest` carries."""
        return self._call(_kind_of(manifest), "replace", body=manifest, namespace=_namespace_of(manifest))

    def get(self, kind: Kind, name: str, namespace: str | None = None) -> Manifest:
        """Return one object."""
        return self._call(kind, "get", name=name, namespace=namespace)

    def list(
        self, kind: Kind, namespace: str | None = None, *, labels: Mapping[str, str] | None = None, fields: str = ""
    ) -> list[Manifest]:
        """Return the objects of a namespace, or of all, that carry `labels` and match a field selector."""
        selector = ",".join(f"{key}={value}" for key, value in (labels or {}).items())
        found = self._call(kind, "get", namespace=namespace, label_selector=selector, field_selector=fields)
        # The items of a list don't say what they are.
        return [{"apiVersion": kind.api_version, "kind": kind.kind} | item for item in found["items"]]

    def patch(
        self, kind: Kind, name: str, patch: Mapping[str, Any], namespace: str | None = None, *, subresource: str = ""
    ) -> Manifest:
        """Merge `patch` into an object or its subresource, such as `status`."""
        return self._call(
            kind, "patch", subresource, body=patch, name=name, namespace=namespace, content_type=_MERGE_PATCH
        )

    def delete(
        self,
        kind: Kind,
        name: str,
        namespace: str | None = None,
        *,
        propagation: str = "Background",
        grace_seconds: int | None = None,
    ) -> None:
        """Delete an object without waiting for its end.

        Args:
            propagation: Background, Foreground or Orphan.
            grace_seconds: what a pod gets to end; 0 forgets it at once. Default: its own.
        """
        grace: dict[str, Any] = {} if grace_seconds is None else {"grace_period_seconds": grace_seconds}
        self._call(kind, "delete", name=name, namespace=namespace, propagation_policy=propagation, **grace)

    def evict(self, name: str, namespace: str) -> None:
        """Evict a pod as `kubectl drain` does."""
        body = kubernetes.client.V1Eviction(metadata=kubernetes.client.V1ObjectMeta(name=name, namespace=namespace))
        kubernetes.client.CoreV1Api(self._client.client).create_namespaced_pod_eviction(name, namespace, body)

    def read_log(self, name: str, namespace: str) -> str:
        """Return what a pod has printed so far."""
        return str(kubernetes.client.CoreV1Api(self._client.client).read_namespaced_pod_log(name, namespace))

    def _call(self, kind: Kind, verb: str, subresource: str = "", **arguments: object) -> Manifest:
        resource = self._client.resources.get(api_version=kind.api_version, kind=kind.kind)
        target = resource.subresources[subresource] if subresource else resource
        answer: Manifest = getattr(self._client, verb)(target, serializer=_keep, **arguments)
        return answer


@contextlib.contextmanager
def connect(kubeconfig: Path) -> Iterator[Client]:
    """Yield a client for the cluster of `kubeconfig`; proxies of the environment are left out."""
    configuration = kubernetes.client.Configuration(proxy="", no_proxy="*")
    client = kubernetes.config.new_client_from_config(
        str(kubeconfig), persist_config=False, client_configuration=configuration
    )
    # The library would keep what it discovers in /tmp by host and port, which one cluster uses after another.
    with client, tempfile.TemporaryDirectory(prefix="finetune-discovery-") as folder:
        yield Client(dynamic.DynamicClient(client, cache_file=f"{folder}/discovery.json"))


def apply_manifests(kubeconfig: Path, manifests: Sequence[Mapping[str, Any]]) -> None:
    """Create or update `manifests` in their order."""
    with connect(kubeconfig) as client:
        for manifest in manifests:
            client.apply(manifest)


def has_default_service_account(kubeconfig: Path, namespace: str) -> bool:
    """Tell whether pods can be created in `namespace`."""
    try:
        with connect(kubeconfig) as client:
            client.get(SERVICE_ACCOUNT, "default", namespace)
    except (kubernetes.client.ApiException, urllib3.exceptions.HTTPError):
        return False
    return True


def create_namespace(kubeconfig: Path, name: str, labels: Mapping[str, str] | None = None) -> None:
    """Create a namespace and wait until pods can be created in it."""
    metadata = {"name": name, "labels": dict(labels or {})}
    with connect(kubeconfig) as client:
        client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})

        def check_account() -> None:
            try:
                client.get(SERVICE_ACCOUNT, "default", name)
            except kubernetes.client.ApiException as error:
                raise waiting.NotYetError("no default service account") from error

        waiting.wait_for(f"namespace {name}", check_account, _NAMESPACE_DEADLINE_SECONDS)


def delete_namespace(kubeconfig: Path, name: str) -> None:
    """Delete a namespace with everything in it, without waiting for the end of it."""
    with connect(kubeconfig) as client:
        client.delete(NAMESPACE, name)


def check_node_ready(kubeconfig: Path, node_name: str) -> None:
    """Raise `NotYetError` with the kubelet's own reason unless the node takes pods."""
    with connect(kubeconfig) as client:
        try:
            node = client.get(NODE, node_name)
        except kubernetes.client.ApiException as error:
            raise waiting.NotYetError(f"no node: {error.reason}") from error
    conditions = node["status"].get("conditions") or []
    ready = next((condition for condition in conditions if condition["type"] == "Ready"), None)
    if ready is None or ready["status"] != "True":
        raise waiting.NotYetError(ready["message"] if ready else "no condition Ready")


def check_deployment_available(kubeconfig: Path, namespace: str, name: str) -> None:
    """Raise `NotYetError` unless a pod of the Deployment takes requests."""
    with connect(kubeconfig) as client:
        deployment = client.get(DEPLOYMENT, name, namespace)
    if not deployment["status"].get("availableReplicas"):
        raise waiting.NotYetError(f"{namespace}/{name} has no available pod")


def patch_node_resources(kubeconfig: Path, node_name: str, resources: Mapping[str, int]) -> None:
    """Let the node say it has `resources`, such as {"nvidia.com/gpu": 8}.

    The kubelet leaves resources it does not know alone, so the patch outlives its own updates.
    """
    quantities = {name: str(count) for name, count in resources.items()}
    patch = {"status": {"capacity": quantities, "allocatable": quantities}}
    with connect(kubeconfig) as client:
        client.patch(NODE, node_name, patch, subresource="status")


def _kind_of(manifest: Mapping[str, Any]) -> Kind:
    return Kind(manifest["apiVersion"], manifest["kind"])


def _namespace_of(manifest: Mapping[str, Any]) -> str | None:
    namespace: str | None = manifest["metadata"].get("namespace")
    return namespace


def _keep(_: object, document: Manifest) -> Manifest:
    return document

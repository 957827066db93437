"""Objects that make things outside of pods usable from inside."""

from __future__ import annotations

from pathlib import Path

from finetune_devcluster import api_client


def expose_host_service(kubeconfig: Path, namespace: str, name: str, ip: str, port: int) -> str:
    """Make `ip`:`port`, outside of any pod, reachable in the cluster under a Service's name and the same port.

    Returns:
        The URL for pods, `http://NAME.NAMESPACE.svc:PORT`.
    """
    metadata = {"name": name, "namespace": namespace}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": [{"port": port}]}}
    # Without a selector nobody fills in the addresses, so they are ours to say.
    endpoints = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {**metadata, "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [ip], "conditions": {"ready": True}}],
        "ports": [{"port": port, "protocol": "TCP"}],
    }
    api_client.apply_manifests(kubeconfig, [service, endpoints])
    return f"http://{name}.{namespace}.svc:{port}"

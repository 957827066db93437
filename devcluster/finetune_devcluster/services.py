"""Objects that make things outside of pods usable from inside."""

from __future__ import annotations

import urllib.parse
from pathlib import Path

from finetune_devcluster import api_client, cluster, errors


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


def expose_s3(running: cluster.Cluster, namespace: str, name: str = "s3") -> str:
    """Make the cluster's S3 server reachable in `namespace` and return its URL for pods.

    Raises:
        DevclusterError: the cluster has no S3 server of ours.
    """
    if running.s3 is None:
        raise errors.DevclusterError(f"cluster {running.name} (level {running.level}) must have level node to have S3")
    address = urllib.parse.urlsplit(running.s3.endpoint_url)
    return expose_host_service(running.kubeconfig, namespace, name, str(address.hostname), address.port or 80)

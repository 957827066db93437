"""CoreDNS as it runs in every cluster: a Deployment and the Service `kube-dns` in kube-system.

It answers for the cluster's own names alone and forwards nothing: no question leaves this machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NAMESPACE = "kube-system"
DEPLOYMENT = "coredns"
CLUSTER_DOMAIN = "cluster.local"

_COREFILE = f"""\
.:53 {{
  errors
  health
  ready
  kubernetes {CLUSTER_DOMAIN} in-addr.arpa
}}
"""


def build_manifests(image: str, address: str) -> list[Mapping[str, Any]]:
    """Return everything CoreDNS needs, with its Service at `address`."""
    metadata = {"name": DEPLOYMENT, "namespace": NAMESPACE}
    subject = {"kind": "ServiceAccount", **metadata}
    rules = [
        {"apiGroups": [""], "resources": ["endpoints", "services", "pods", "namespaces"], "verbs": ["list", "watch"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
    ]
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:coredns"}
    rbac = {"apiVersion": "rbac.authorization.k8s.io/v1"}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        {**rbac, "kind": "ClusterRole", "metadata": {"name": role["name"]}, "rules": rules},
        {
            **rbac,
            "kind": "ClusterRoleBinding",
            "metadata": {"name": role["name"]},
            "roleRef": role,
            "subjects": [subject],
        },
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"Corefile": _COREFILE}},
        _build_deployment(image),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "kube-dns", "namespace": NAMESPACE, "labels": {"k8s-app": "kube-dns"}},
            "spec": {
                "clusterIP": address,
                "selector": {"k8s-app": "kube-dns"},
                "ports": [
                    {"name": "dns", "port": 53, "protocol": "UDP"},
                    {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
                ],
            },
        },
    ]


def _build_deployment(image: str) -> Mapping[str, Any]:
    labels = {"k8s-app": "kube-dns"}
    container = {
        "name": "coredns",
        "image": image,
        "imagePullPolicy": "Never",
        "args": ["-conf", "/etc/coredns/Corefile"],
        "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns", "readOnly": True}],
        # Once a second from the start: the default first look after ten seconds would double the start of a cluster.
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 1},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": DEPLOYMENT, "namespace": NAMESPACE, "labels": labels},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "serviceAccountName": DEPLOYMENT,
                    "priorityClassName": "system-cluster-critical",
                    "dnsPolicy": "Default",
                    "containers": [container],
                    "volumes": [{"name": "config", "configMap": {"name": DEPLOYMENT}}],
                },
            },
        },
    }

"""The kubelet and kube-proxy of a node-level cluster.

One node, with the limits a real one has: it proves itself by a certificate of group system:nodes, so the Node
authorizer and NodeRestriction apply to it, and `kubectl logs` and `exec` reach it through the API server.
"""

from __future__ import annotations

import json
from pathlib import Path

from finetune_devcluster import api_client, certificates, cgroups, container_runtime, dns, kubeconfig, sandbox, waiting

NODE_NAME = "node1"

# Measured: 5 s from start to Ready on an idle machine with two cores, 2026-11; the rest is room for a loaded one.
_READY_DEADLINE_SECONDS = 120.0


def launch(box: sandbox.Sandbox, name: str, binaries: Path, api_url: str) -> None:
    """Start the kubelet and kube-proxy of the cluster `name`; the node becomes Ready later."""
    authority = certificates.Authority(box.directory / "pki")
    hosts = [NODE_NAME, box.net.node_address]
    serving = authority.issue("kubelet", f"system:node:{NODE_NAME}", groups=["system:nodes"], hosts=hosts)
    proxy = authority.issue("kube-proxy", "system:kube-proxy")
    kubelet_config = kubeconfig.save_kubeconfig(box.directory / "kubelet.kubeconfig", api_url, authority, serving)
    proxy_config = kubeconfig.save_kubeconfig(box.directory / "kube-proxy.kubeconfig", api_url, authority, proxy)
    cgroups.create(name)
    _save_config(box.directory / "kubelet.yaml", _build_kubelet_config(box, name, authority, serving))
    _save_config(box.directory / "kube-proxy.yaml", _build_proxy_config(box, proxy_config))
    box.group.start(
        "kubelet",
        [
            *(str(binaries / "kubelet"), f"--config={box.directory / 'kubelet.yaml'}"),
            *(f"--kubeconfig={kubelet_config}", f"--hostname-override={NODE_NAME}"),
            f"--node-ip={box.net.node_address}",
        ],
    )
    box.group.start("kube-proxy", [str(binaries / "kube-proxy"), f"--config={box.directory / 'kube-proxy.yaml'}"])


def wait_until_ready(box: sandbox.Sandbox, admin_config: Path) -> None:
    """Wait until the node takes pods."""

    def check() -> None:
        for program in ("containerd", "kubelet", "kube-proxy"):
            box.group.check_running(program)
        api_client.check_node_ready(admin_config, NODE_NAME)

    waiting.wait_for("node", check, _READY_DEADLINE_SECONDS)


def _build_kubelet_config(
    box: sandbox.Sandbox, name: str, authority: certificates.Authority, serving: certificates.KeyPair
) -> dict[str, object]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": box.net.node_address,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(authority.key_pair.certificate)},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(serving.certificate),
        "tlsPrivateKeyFile": str(serving.key),
        "containerRuntimeEndpoint": f"unix://{container_runtime.SOCKET}",
        "clusterDNS": [box.net.dns_address],
        "clusterDomain": dns.CLUSTER_DOMAIN,
        # No name servers of this machine: a question from a pod must not leave it.
        "resolvConf": "",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{cgroups.group_name(name)}",
        # Machines with control groups of version 1 are refused otherwise.
        "failCgroupV1": False,
        "failSwapOn": False,
        "enforceNodeAllocatable": [],
        # A developer's disk is nearly full by nature: pods are evicted for memory alone, and images are kept.
        "evictionHard": {"memory.available": "100Mi"},
        "imageGCHighThresholdPercent": 100,
        "serializeImagePulls": False,
        # Who kills a container on purpose waits for the restart: 1 s, the least there is, instead of up to 5 minutes.
        "crashLoopBackOff": {"maxContainerRestartPeriod": "1s"},
        "healthzPort": 0,
        "readOnlyPort": 0,
    }


def _build_proxy_config(box: sandbox.Sandbox, config: Path) -> dict[str, object]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clientConnection": {"kubeconfig": str(config)},
        "hostnameOverride": NODE_NAME,
        "clusterCIDR": box.net.pod_cidr,
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        # The kernel's connection table belongs to the machine; inside a container it cannot even be written.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpCloseWaitTimeout": "0s", "tcpEstablishedTimeout": "0s"},
    }


def _save_config(path: Path, document: dict[str, object]) -> None:
    path.write_text(json.dumps(document, indent=1))

"""Prometheus beside a node-level cluster: Debian's program, scraping pods that have a port named `metrics`.

Series carry the labels `namespace` and `pod`; whatever else of a pod's labels matters is for the caller to say, because
this package does not know what runs in the cluster. The data lies in the cluster's folder and goes with it.
"""

from __future__ import annotations

import http.client
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from finetune_devcluster import (
    api_client,
    certificates,
    errors,
    kubeconfig,
    processes,
    programs,
    sandbox,
    state,
    waiting,
)

PORT = 9090
PROGRAMS = ("prometheus",)

_PROCESS_NAME = "prometheus"
_DISCOVERY = "pod-discovery"
_USER = "devcluster-prometheus"
_SCRAPE_SECONDS = 5  # a short training run lasts a minute; the usual 30 s would show two points of it
_READY_DEADLINE_SECONDS = 60.0  # measured: 1 s on an idle machine, 2026-11


def start(name: str, relabelings: Sequence[Mapping[str, Any]] = ()) -> str:
    """Start Prometheus in the running cluster `name` and return its URL for this machine.

    Idempotent; with other `relabelings` than before it is started anew and keeps its data.

    Args:
        name: A cluster of the node level.
        relabelings: Prometheus relabelings that follow ours, to turn pod labels into labels of the series.

    Raises:
        MissingProgramError: Prometheus is not installed.
        DevclusterError: there is no such cluster of the node level.
    """
    program = programs.find_program("prometheus")
    known = state.load_state(name)
    if known is None or known.level != "node":
        raise errors.DevclusterError(f"cluster {name} must run at level node to have Prometheus; start it with `up`")
    cluster_directory = state.state_directory(name)
    box = sandbox.load(cluster_directory, name, known.network_index)
    # A group of its own: the cluster works without it.
    group = processes.ProcessGroup(cluster_directory / "prometheus", box.group.prefix, name)
    address = f"{box.net.node_address}:{PORT}"
    targets = group.directory / "targets" / "pods.json"
    config = group.directory / "prometheus.json"
    document = json.dumps(_build_config(targets, relabelings), indent=1)
    if not (_is_ready(address) and config.read_text() == document):
        group.stop(5.0)
        targets.parent.mkdir(parents=True, exist_ok=True)
        config.write_text(document)
        reader = _grant_access(cluster_directory, known.api_url)
        group.start(_DISCOVERY, [sys.executable, "-m", "finetune_devcluster.pod_discovery", str(reader), str(targets)])
        data = f"--storage.tsdb.path={group.directory / 'data'}"
        group.start(_PROCESS_NAME, [str(program), f"--config.file={config}", data, f"--web.listen-address={address}"])
        waiting.wait_for(f"Prometheus at {address}", lambda: _check_ready(group, address), _READY_DEADLINE_SECONDS)
    return f"http://{address}"


def _build_config(targets: Path, relabelings: Sequence[Mapping[str, Any]]) -> dict[str, object]:
    def keep(label: str, expression: str) -> dict[str, object]:
        return {"source_labels": [label], "action": "keep", "regex": expression}

    def copy(label: str, target: str) -> dict[str, object]:
        return {"source_labels": [label], "target_label": target}

    pods = {
        "job_name": "pods",
        # A controller's series speak of other namespaces than its own: their label is the one that counts.
        "honor_labels": True,
        "file_sd_configs": [{"files": [str(targets)]}],
        "relabel_configs": [
            keep("__meta_kubernetes_pod_container_port_name", "metrics"),
            keep("__meta_kubernetes_pod_phase", "Running"),
            copy("__meta_kubernetes_namespace", "namespace"),
            copy("__meta_kubernetes_pod_name", "pod"),
            *map(dict, relabelings),
        ],
    }
    return {"global": {"scrape_interval": f"{_SCRAPE_SECONDS}s"}, "scrape_configs": [pods]}


def _grant_access(directory: Path, api_url: str) -> Path:
    authority = certificates.Authority(directory / "pki")
    pair = authority.issue("prometheus", _USER)
    config = kubeconfig.save_kubeconfig(directory / "prometheus.kubeconfig", api_url, authority, pair)
    rbac = "rbac.authorization.k8s.io"
    role = {"apiGroup": rbac, "kind": "ClusterRole", "name": _USER}
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}]
    subjects = [{"apiGroup": rbac, "kind": "User", "name": _USER}]
    common = {"apiVersion": f"{rbac}/v1", "metadata": {"name": _USER}}
    manifests = [
        {**common, "kind": "ClusterRole", "rules": rules},
        {**common, "kind": "ClusterRoleBinding", "roleRef": role, "subjects": subjects},
    ]
    api_client.apply_manifests(directory / "kubeconfig", manifests)
    return config


def _check_ready(group: processes.ProcessGroup, address: str) -> None:
    group.check_running(_PROCESS_NAME)
    group.check_running(_DISCOVERY)
    if not _is_ready(address):
        raise waiting.NotYetError("not ready")


def _is_ready(address: str) -> bool:
    connection = http.client.HTTPConnection(address, timeout=5)
    try:
        connection.request("GET", "/-/ready")
        return connection.getresponse().status == http.HTTPStatus.OK
    except OSError:
        return False
    finally:
        connection.close()

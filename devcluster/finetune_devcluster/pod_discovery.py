"""Tells Prometheus which pods there are: `python -m finetune_devcluster.pod_discovery KUBECONFIG FILE`.

Debian's Prometheus is built without Kubernetes discovery. This program fills the gap: it writes the file that
Prometheus reads targets from, with the same `__meta_kubernetes_…` labels, so relabelings are those of every cluster.
Ends only when it is stopped; an API server that does not answer is asked again.
"""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path

import kubernetes
import urllib3.exceptions

from finetune_devcluster import api_client
from finetune_devcluster.api_client import Manifest

_PERIOD_SECONDS = 2.0  # below the scrape interval of 5 s: a new pod misses at most one scrape


def build_targets(pod: Manifest) -> list[Manifest]:
    """Return one target per container port of `pod`; none before it has an address."""
    metadata, spec, status = pod["metadata"], pod["spec"], pod["status"]
    if not status.get("podIP"):
        return []
    labels = {
        "namespace": metadata["namespace"],
        "pod_name": metadata["name"],
        "pod_ip": status["podIP"],
        "pod_phase": status["phase"],
        "pod_node_name": spec["nodeName"],
        **{f"pod_label_{_sanitize(key)}": value for key, value in metadata.get("labels", {}).items()},
    }
    return [
        _build_target(status["podIP"], container["name"], port, labels)
        for container in spec["containers"]
        for port in container.get("ports", [])
    ]


def _build_target(ip: str, container: str, port: Manifest, labels: dict[str, str]) -> Manifest:
    own = {"pod_container_name": container, "pod_container_port_name": port.get("name", "")}
    meta = {f"__meta_kubernetes_{key}": value for key, value in {**labels, **own}.items()}
    return {"targets": [f"{ip}:{port['containerPort']}"], "labels": meta}


def _sanitize(key: str) -> str:
    return re.sub(r"[^a-zA-Z0-9_]", "_", key)  # as Prometheus does with label names


def main(kubeconfig: Path, file: Path) -> None:
    """Keep `file` up to date for ever."""
    written = ""
    while True:
        try:
            with api_client.connect(kubeconfig) as client:
                pods = client.list(api_client.POD)
        except (kubernetes.client.ApiException, urllib3.exceptions.HTTPError) as error:
            sys.stderr.write(f"pods could not be listed error={error}\n")
        else:
            content = json.dumps([target for pod in pods for target in build_targets(pod)])
            if content != written:
                # Renamed: Prometheus must never read half a file.
                draft = file.with_suffix(".new")
                draft.write_text(content)
                draft.rename(file)
                written = content
        time.sleep(_PERIOD_SECONDS)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

"""The Helm chart rendered offline by Helm's own engine, as plain objects."""

from pathlib import Path
from typing import Any

import helm_python
import yaml

CHART = Path(__file__).parents[2] / "charts" / "finetune-operator"
RELEASE = "tuning"
NAMESPACE = "finetune-system"
REQUIRED: dict[str, Any] = {
    "image": {"repository": "registry.example.com/finetune-operator"},
    "trainer": {"image": "registry.example.com/finetune-trainer:0.1.0"},
}
"""The two values that have no default."""
PROMETHEUS: list[dict[str, Any]] = [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "prometheus"}}}]
NARROW_NETWORKS: dict[str, Any] = {
    "operator": {"apiServerCIDRs": ["10.0.0.1/32"], "metricsFrom": PROMETHEUS},
    "trainer": {"namespaces": ["team-a"], "storePeers": [{"ipBlock": {"cidr": "10.1.0.0/16"}}]},
}
MONITORS: dict[str, Any] = {
    "metrics": {"serviceMonitor": {"enabled": True}, "podMonitor": {"enabled": True}},
    "networkPolicy": {"operator": {"metricsFrom": PROMETHEUS}, "trainer": {"metricsFrom": PROMETHEUS}},
}
"""Everything that the Prometheus Operator needs."""

Object = dict[str, Any]


def merge(*layers: dict[str, Any]) -> dict[str, Any]:
    """Lay values over each other as Helm does: objects are merged, everything else is replaced."""
    result: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            below = result.get(key)
            result[key] = merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return result


def render(*values: dict[str, Any], release: str = RELEASE) -> list[Object]:
    """Render all objects with the required values and the given ones on top, ordered by kind, namespace and name."""
    texts = render_texts(*values, release=release)
    rendered = [text for name, text in texts.items() if name.endswith(".yaml")]
    # The CRD is long: without the C parser, reading it takes most of a rendering.
    documents = [item for text in rendered for item in yaml.load_all(text, yaml.CSafeLoader)]
    return sorted((item for item in documents if item), key=identify)


def render_texts(*values: dict[str, Any], release: str = RELEASE) -> dict[str, str]:
    """Render all templates, notes included, by their path."""
    with helm_python.Chart.load(CHART) as chart:
        return chart.render(merge(REQUIRED, *values), name=release, namespace=NAMESPACE)


def identify(item: Object) -> tuple[str, str, str]:
    """Return kind, namespace and name."""
    return item["kind"], item["metadata"].get("namespace", ""), item["metadata"]["name"]


def find(objects: list[Object], kind: str) -> list[Object]:
    """Return the objects of a kind."""
    return [item for item in objects if item["kind"] == kind]

"""Prometheus of the demo: started with the labels of the product, asked for the share of steps done.

What it scrapes are operator and trainer pods, found by their port named `metrics`.
"""

import contextlib
import json
import urllib.parse
import urllib.request

from finetune_api import group, metrics
from finetune_devcluster import progress, prometheus
from finetune_devcluster.cluster import Cluster

_RELABELINGS = [
    {
        "source_labels": [f"__meta_kubernetes_pod_label_{group.LABEL_JOB.replace('.', '_').replace('/', '_')}"],
        "target_label": "finetune_job",
    }
]
_TIMEOUT_SECONDS = 5.0


def start(running: Cluster, steps: progress.Steps) -> str:
    """Start Prometheus beside the cluster and return its address."""
    with steps.step("start Prometheus"):
        return prometheus.start(running.name, _RELABELINGS)


def query(url: str, expression: str) -> dict[str, float]:
    """Return the value of an instant query by job name; nothing while Prometheus has no answer."""
    address = f"{url}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
    with (
        contextlib.suppress(OSError),
        urllib.request.urlopen(address, timeout=_TIMEOUT_SECONDS) as answer,  # noqa: S310 - the demo's own Prometheus
    ):
        found = json.load(answer)["data"]["result"]
        return {item["metric"].get("finetune_job", ""): float(item["value"][1]) for item in found}
    return {}


def fetch_step_shares(url: str, namespace: str) -> dict[str, float]:
    """Return the share of optimizer steps done, 0 to 1, by job name, of the trainers that run now."""
    selector = f'{{namespace="{namespace}"}}'
    return query(url, f"{metrics.TRAINER_STEP.name}{selector} / {metrics.TRAINER_STEPS_PLANNED.name}{selector}")

"""The product in a devcluster: both images built, the chart installed, a namespace made ready for jobs.

The operator is installed only through the chart, as a platform team would. Idempotent: what is there already stays.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_devcluster import api_client, helm, images, progress, s3, services
from finetune_devcluster.cluster import Cluster

ROOT = Path(__file__).parents[2]
RELEASE = "finetune-operator"
OPERATOR_NAMESPACE = "finetune-system"
SECRET = "s3-credentials"  # noqa: S105 - a name


@dataclass(frozen=True)
class Images:
    """References as pods name them."""

    operator: str
    trainer: str


def build_images(running: Cluster, steps: progress.Steps) -> Images:
    """Build and push what has changed since the last time."""
    if running.registry is None:
        raise ValueError(f"cluster {running.name} (level {running.level}) must have the level node to hold images")
    operator, trainer = (
        images.build_image(ROOT / f"Dockerfile.{part}", ROOT, f"finetune-{part}", running.registry, steps=steps)
        for part in ("operator", "trainer")
    )
    return Images(operator, trainer)


def install_operator(
    running: Cluster, built: Images, steps: progress.Steps, chosen: Mapping[str, Any] | None = None
) -> None:
    """Install or upgrade the chart and wait until the operator is ready.

    Args:
        running: a cluster of the node level.
        built: the images to install.
        steps: where to show what is done.
        chosen: values of the chart in place of those below, by their first name.
    """
    repository, _, tag = built.operator.rpartition(":")
    values: dict[str, Any] = {
        "image": {"repository": repository, "tag": tag},
        "trainer": {"image": built.trainer},
        "allowedImages": [f"{built.trainer.split('/')[0]}/*"],
        # A prepare pod fits beside the training of another run on a node of two cores.
        "prepare": {"cpu": "500m", "memory": "2Gi"},
        # On one node runs wait for each other.
        "reconcile": {"unschedulableGraceSeconds": 600},
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}},
        **(chosen or {}),
    }
    with steps.step("install the chart"):
        helm.install_chart(
            running.kubeconfig, ROOT / "charts" / "finetune-operator", RELEASE, OPERATOR_NAMESPACE, values
        )


def require_s3(running: Cluster) -> s3.S3Server:
    """Return the cluster's S3 server.

    Raises:
        ValueError: the cluster is not of the node level.
    """
    if running.s3 is None:
        raise ValueError(
            f"cluster {running.name} (level {running.level}) must have the level node to hold an S3 server"
        )
    return running.s3


def make_namespace(running: Cluster, namespace: str) -> None:
    """Create a namespace that enforces Pod Security restricted, with the credentials and the S3 Service jobs name."""
    server = require_s3(running)
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    manifests = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}},
        build_secret(namespace, SECRET, server.access_key, server.secret_key),
    ]
    api_client.apply_manifests(running.kubeconfig, manifests)
    services.expose_s3(running, namespace)


def build_secret(namespace: str, name: str, access_key: str, secret_key: str) -> dict[str, Any]:
    """Build the Secret that `spec.storage.secretName` names."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace},
        "stringData": {"AWS_ACCESS_KEY_ID": access_key, "AWS_SECRET_ACCESS_KEY": secret_key},
    }

"""The product installed on a real node, for the cluster tests: images built, chart installed, S3 and Prometheus beside.

`product` is what a test sees of it. It does what a platform team and a user can do, nothing more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from finetune_devcluster import api_client, cluster

SYSTEM_DEADLINE_SECONDS = 180.0
VALUES = {
    "reconcile": {"unschedulableGraceSeconds": 20},
    # Of tests alone: a class whose runtime no node has.
    "allowedRuntimeClasses": ["no-such-runtime"],
    "podMetadata": {"labels": ["cost-center"], "annotations": ["example.com/*"]},
}
"""What the chart is installed with, on top of what the demo chooses."""


@dataclass
class Product:
    """The installed product."""

    running: cluster.Cluster
    client: api_client.Client
    folder: Path
    prometheus_url: str
    registry: str
    images: str
    """Name both images in one word: another one means that something was built anew."""
    _namespaces: set[str] = field(default_factory=set)

    def make_namespace(self, name: str) -> None:
        """Make a namespace with good, wrong and read-only credentials."""
        from finetune_demo import installation
        from finetune_devcluster import api_client

        if name in self._namespaces:
            return
        server = installation.require_s3(self.running)
        installation.make_namespace(self.running, name)
        reader = server.add_identity(f"reader-{name}", ["Read", "List"])
        secrets = [
            installation.build_secret(name, "wrong-credentials", server.access_key, "not-the-secret-key"),
            installation.build_secret(name, "read-only-credentials", reader.access_key, reader.secret_key),
        ]
        api_client.apply_manifests(self.running.kubeconfig, secrets)
        self._namespaces.add(name)

    def delete_namespace(self, name: str) -> None:
        """Delete a namespace with its runs, so that its pods make room."""
        from finetune_devcluster import api_client

        self._namespaces.discard(name)
        api_client.delete_namespace(self.running.kubeconfig, name)

    def apply(self, manifest: dict[str, Any]) -> None:
        """Apply any object."""
        from finetune_devcluster import api_client

        api_client.apply_manifests(self.running.kubeconfig, [manifest])

    def make_job(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """Give a FineTuneJob the storage of this cluster and resources that let several run on two cores."""
        namespace = manifest["metadata"]["namespace"]
        spec = {
            "storage": {
                "secretName": "s3-credentials",
                "endpointURL": f"http://s3.{namespace}.svc:8333",
                "addressingStyle": "path",
            },
            "resources": {"gpus": 0, "cpu": "450m", "memory": "2Gi", "scratch": "2Gi"},
        }
        return manifest | {"spec": spec | manifest["spec"]}

    def upload(self, bucket: str, contents: dict[str, bytes]) -> None:
        """Put contents into a bucket by key."""
        from finetune_demo import buckets

        with _s3(self.running) as client:
            buckets.upload_contents(client, bucket, contents)

    def example_files(self, name: str) -> dict[str, Path]:
        """Return data and base model of an example by `<bucket>/<key>`."""
        from finetune_demo import datasets

        return datasets.build_example_data(name, self.folder) | datasets.build_example_models(name, self.folder)

    def base_models(self) -> tuple[dict[str, Path], Path]:
        """Return the files of MiniLM by key, and the GGUF file."""
        from finetune_demo import datasets, models

        minilm = datasets.build_example_models("movie-sentiment", self.folder)
        gguf = datasets.build_example_models("define-nouns", self.folder)
        return minilm, gguf[models.SMOLLM2_KEY]

    def upload_examples(self, names: Sequence[str]) -> None:
        """Upload data and base models of examples."""
        from finetune_demo import buckets

        with _s3(self.running) as client:
            for name in names:
                buckets.upload_files(client, self.example_files(name))

    def read(self, uri: str) -> bytes:
        """Return one object's content."""
        from finetune_demo import buckets

        with _s3(self.running) as client:
            return buckets.read(client, uri)

    def download(self, uri: str, folder: Path) -> None:
        """Copy everything below an address into a folder."""
        from finetune_demo import buckets

        with _s3(self.running) as client:
            buckets.download(client, uri, folder)

    def list_keys(self, bucket: str, prefix: str) -> list[str]:
        """Return the keys below a folder of a bucket."""
        from finetune_demo import buckets

        with _s3(self.running) as client:
            return buckets.list_keys(client, bucket, f"{prefix}/")

    def sha256(self, content: bytes) -> str:
        """Return the digest as the manifests write it."""
        return hashlib.sha256(content).hexdigest()

    def list_jobs(self, namespace: str, name: str) -> list[str]:
        """Return the names of a run's child Jobs."""
        found = self.client.list(_job_kind(), namespace, labels=_labels(name))
        return sorted(str(job["metadata"]["name"]) for job in found)

    def list_pods(self, namespace: str, name: str, phase: str | None = None) -> list[dict[str, Any]]:
        """Return a run's pods, the oldest first, or those in one phase."""
        from finetune_devcluster import api_client

        found = self.client.list(api_client.POD, namespace, labels=_labels(name))
        found.sort(key=lambda pod: str(pod["metadata"]["creationTimestamp"]))
        return [pod for pod in found if phase is None or pod["status"]["phase"] == phase]

    def list_events(self, namespace: str, name: str) -> list[str]:
        """Return the reasons of the Events about a FineTuneJob."""
        from finetune_api import group
        from finetune_devcluster import api_client

        fields = f"involvedObject.kind={group.KIND},involvedObject.name={name}"
        found = self.client.list(api_client.Kind("v1", "Event"), namespace, fields=fields)
        return [str(event["reason"]) for event in found]

    def read_visible_texts(self, namespace: str) -> dict[str, bytes]:
        """Return everything of a namespace that somebody who may not read Secrets can see: `<kind> <name>` → text."""
        import json

        from finetune_demo import runs
        from finetune_devcluster import api_client

        texts: dict[str, bytes] = {}
        for kind in (runs.FINE_TUNE_JOB, _job_kind(), api_client.POD, api_client.Kind("v1", "Event")):
            for item in self.client.list(kind, namespace):
                texts[f"{kind.kind} {item['metadata']['name']}"] = json.dumps(item).encode()
        for pod in self.client.list(api_client.POD, namespace):
            name = pod["metadata"]["name"]
            texts[f"log {name}"] = self.client.read_log(name, namespace).encode()
        return texts

    def patch_job(self, namespace: str, name: str, patch: dict[str, Any]) -> None:
        """Edit a FineTuneJob as `kubectl patch --type merge` does."""
        from finetune_demo import runs

        self.client.patch(runs.FINE_TUNE_JOB, name, patch, namespace)

    def delete_job(self, namespace: str, name: str) -> None:
        """Delete a FineTuneJob as `kubectl delete` does."""
        from finetune_demo import runs

        self.client.delete(runs.FINE_TUNE_JOB, name, namespace)

    def wait_gone(self, namespace: str, name: str) -> None:
        """Wait until garbage collection has removed a run's Jobs and pods."""
        from finetune_devcluster import waiting

        def check() -> None:
            left = [
                *self.list_jobs(namespace, name),
                *(pod["metadata"]["name"] for pod in self.list_pods(namespace, name)),
            ]
            if left:
                raise waiting.NotYetError(", ".join(left))

        waiting.wait_for(f"the end of {name}'s children", check, SYSTEM_DEADLINE_SECONDS)


def _job_kind() -> api_client.Kind:
    from finetune_devcluster import api_client

    return api_client.Kind("batch/v1", "Job")


def _labels(name: str) -> dict[str, str]:
    from finetune_api import group

    return {group.LABEL_JOB: name}


def _s3(running: cluster.Cluster) -> Any:
    from contextlib import closing

    from finetune_demo import buckets, installation

    return closing(buckets.connect(installation.require_s3(running)))


@pytest.fixture(scope="session")
def product(node_cluster: cluster.Cluster) -> Iterator[Product]:
    """The product on the node: built from this checkout, installed only through its chart."""
    from finetune_demo import buckets, installation, monitoring, sources
    from finetune_devcluster import api_client, progress

    steps = progress.Steps()
    built = installation.build_images(node_cluster, steps)
    installation.install_operator(node_cluster, built, steps, VALUES)
    prometheus_url = monitoring.start(node_cluster, steps)
    folder = sources.cache_directory() / "examples"
    with _s3(node_cluster) as client:
        buckets.make_buckets(client)
    with api_client.connect(node_cluster.kubeconfig) as client:
        tags = "-".join(image.rsplit(":", 1)[1] for image in (built.operator, built.trainer))
        installed = Product(node_cluster, client, folder, prometheus_url, built.trainer.split("/")[0], tags)
        installed.upload_examples(["movie-sentiment", "define-nouns"])
        yield installed

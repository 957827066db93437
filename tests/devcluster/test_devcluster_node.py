"""A node-level cluster runs pods from our images, finds things by name, and leaves nothing when it is gone."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from cluster_fixtures import missing_programs_skip

from finetune_devcluster import (
    api_client,
    cluster,
    helm,
    images,
    leftovers,
    node,
    prometheus,
    s3,
    services,
    state,
    waiting,
)
from finetune_devcluster.api_client import Kind, Manifest

pytestmark = pytest.mark.cluster

# Prints the status S3 gives a stranger: it answers, and it was found by the Service's name.
ASK_S3 = """\
import sys, urllib.error, urllib.request
try:
    urllib.request.urlopen(sys.argv[1])
except urllib.error.HTTPError as error:
    print("status", error.code)
"""


@pytest.fixture(scope="module")
def image(node_cluster: cluster.Cluster, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Python image of our own with one script, in the cluster's registry."""
    context = tmp_path_factory.mktemp("image")
    (context / "ask.py").write_text(ASK_S3)
    dockerfile = context / "Dockerfile"
    dockerfile.write_text("FROM python:3.11-slim-bookworm\nCOPY ask.py /ask.py\nRUN python /ask.py 2>&1 | tail -1\n")
    assert node_cluster.registry is not None
    with missing_programs_skip():
        return images.build_image(dockerfile, context, "devcluster-test", node_cluster.registry)


def run_pod(kubeconfig: Path, namespace: str, image: str, command: list[str], **container: Any) -> Manifest:
    """Run a pod to its end and return it."""
    name = f"pod-{secrets.token_hex(3)}"
    manifest = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "restartPolicy": "Never",
            "containers": [{"name": "main", "image": image, "command": command, **container}],
        },
    }
    api_client.apply_manifests(kubeconfig, [manifest])

    def check_ended() -> Manifest:
        with api_client.connect(kubeconfig) as client:
            pod = client.get(api_client.POD, name, namespace)
        if pod["status"]["phase"] not in {"Succeeded", "Failed"}:
            raise waiting.NotYetError(str(pod["status"].get("containerStatuses")))
        return pod

    return waiting.wait_for(f"end of {name}", check_ended, 90.0)


def kubectl(kubeconfig: Path, *arguments: str) -> str:
    command = ["kubectl", f"--kubeconfig={kubeconfig}", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_a_pod_from_our_image_finds_s3_by_the_name_of_its_service(
    node_cluster: cluster.Cluster, node_namespace: str, image: str
) -> None:
    assert node_cluster.s3 is not None
    url = services.expose_s3(node_cluster, node_namespace)
    assert url == f"http://s3.{node_namespace}.svc:8333"
    pod = run_pod(node_cluster.kubeconfig, node_namespace, image, ["python", "/ask.py", url])
    assert kubectl(node_cluster.kubeconfig, "logs", "-n", node_namespace, pod["metadata"]["name"]) == "status 403\n"


def test_a_pod_over_its_memory_limit_is_killed_and_says_so(
    node_cluster: cluster.Cluster, node_namespace: str, image: str
) -> None:
    command = ["python", "-c", "held = bytearray(200 << 20)"]
    resources = {"limits": {"memory": "64Mi"}}
    pod = run_pod(node_cluster.kubeconfig, node_namespace, image, command, resources=resources)
    ended = pod["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (ended["reason"], ended["exitCode"]) == ("OOMKilled", 137)


def test_a_command_runs_inside_a_running_pod(node_cluster: cluster.Cluster) -> None:
    output = kubectl(
        node_cluster.kubeconfig, "exec", "-n", "kube-system", "deployment/coredns", "--", "/coredns", "-version"
    )
    assert output.startswith("CoreDNS-1.13.1")


def test_an_unchanged_image_is_neither_built_nor_pushed_again(
    node_cluster: cluster.Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "Dockerfile").write_text("FROM python:3.11-slim-bookworm\nCOPY data /data\n")
    (tmp_path / "data").write_text("one")
    assert node_cluster.registry is not None
    first = images.build_image(tmp_path / "Dockerfile", tmp_path, "devcluster-test-cached", node_cluster.registry)
    with monkeypatch.context() as patch:
        patch.setattr(images, "_build", lambda *_: pytest.fail("built again"))
        patch.setattr(images, "_push", lambda *_: pytest.fail("pushed again"))
        again = images.build_image(tmp_path / "Dockerfile", tmp_path, "devcluster-test-cached", node_cluster.registry)
    (tmp_path / "data").write_text("two")
    other = images.build_image(tmp_path / "Dockerfile", tmp_path, "devcluster-test-cached", node_cluster.registry)
    assert again == first
    assert other != first


def test_a_pod_that_asks_for_pretended_gpus_is_placed(
    node_cluster: cluster.Cluster, node_namespace: str, image: str
) -> None:
    api_client.patch_node_resources(node_cluster.kubeconfig, node.NODE_NAME, {"nvidia.com/gpu": 8})
    resources = {"limits": {"nvidia.com/gpu": "4"}}
    pod = run_pod(node_cluster.kubeconfig, node_namespace, image, ["true"], resources=resources)
    assert pod["status"]["phase"] == "Succeeded"


def test_a_chart_is_installed_upgraded_and_removed(
    node_cluster: cluster.Cluster, node_namespace: str, tmp_path: Path
) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "Chart.yaml").write_text("apiVersion: v2\nname: tiny\nversion: 0.1.0\n")
    (tmp_path / "templates" / "config.yaml").write_text(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: tiny}\ndata: {word: {{ .Values.word | quote }}}\n"
    )
    for word in ("first", "second"):
        helm.install_chart(node_cluster.kubeconfig, tmp_path, "tiny", node_namespace, {"word": word})
        with api_client.connect(node_cluster.kubeconfig) as client:
            assert client.get(Kind("v1", "ConfigMap"), "tiny", node_namespace)["data"] == {"word": word}
    helm.uninstall_chart(node_cluster.kubeconfig, "tiny", node_namespace)
    listed = json.loads(kubectl(node_cluster.kubeconfig, "get", "configmaps", "-n", node_namespace, "-o", "json"))
    assert "tiny" not in [item["metadata"]["name"] for item in listed["items"]]


def test_prometheus_scrapes_pods_and_labels_their_series(
    node_cluster: cluster.Cluster, node_namespace: str, image: str
) -> None:
    app = "__meta_kubernetes_pod_label_app"
    with missing_programs_skip():
        url = prometheus.start(node_cluster.name, [{"source_labels": [app], "target_label": "app"}])
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "metered", "namespace": node_namespace, "labels": {"app": "meter"}},
        "spec": {
            "containers": [
                {
                    "name": "main",
                    "image": image,
                    "workingDir": "/srv",
                    "command": ["sh", "-c", "echo answer 42 > metrics && exec python -m http.server 8000"],
                    "ports": [{"name": "metrics", "containerPort": 8000}],
                }
            ]
        },
    }
    api_client.apply_manifests(node_cluster.kubeconfig, [pod])

    def fetch_series() -> dict[str, Any]:
        query = f"{url}/api/v1/query?query=answer"
        with urllib.request.urlopen(query, timeout=5) as answer:  # noqa: S310 - the address just started
            document = json.load(answer)
        if not (found := document["data"]["result"]):
            raise waiting.NotYetError(json.dumps(document))
        return dict(found[0])

    series = waiting.wait_for("the pod's series", fetch_series, 60.0)
    assert series["value"][1] == "42"
    assert series["metric"]["namespace"] == node_namespace
    assert (series["metric"]["pod"], series["metric"]["app"]) == ("metered", "meter")


def test_the_s3_server_of_a_cluster_takes_new_users(node_cluster: cluster.Cluster) -> None:
    assert node_cluster.s3 is not None
    added = node_cluster.s3.add_identity(f"user-{secrets.token_hex(3)}", s3.READ_ONLY_ACTIONS)
    client = boto3.client(
        "s3",
        endpoint_url=node_cluster.s3.endpoint_url,
        aws_access_key_id=added.access_key,
        aws_secret_access_key=added.secret_key,
        region_name="us-east-1",
    )
    with pytest.raises(ClientError, match="AccessDenied"):
        client.create_bucket(Bucket="not-allowed")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "a killed driver, then down"])
def test_a_start_that_was_broken_off_leaves_nothing(node_cluster: cluster.Cluster, number: signal.Signals) -> None:
    assert node_cluster.level == "node"  # the programs are built: what is broken off must be a start, not a build
    name = f"own-{secrets.token_hex(3)}"
    command = [sys.executable, "-m", "finetune_devcluster", "up", "--name", name]
    driver = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    begun = state.state_directory(name) / "logs" / "kubelet.log"

    def check_begun() -> None:
        if not begun.exists():
            raise waiting.NotYetError(f"no {begun}")

    waiting.wait_for("kubelet", check_begun, 60.0)
    os.kill(driver.pid, number)
    assert driver.wait(timeout=60) != 0
    if number == signal.SIGKILL:
        cluster.stop(name)
    assert leftovers.find_leftovers(name) == []


def test_a_second_cluster_runs_beside_the_first_and_leaves_nothing(node_cluster: cluster.Cluster) -> None:
    name = f"own-{secrets.token_hex(3)}"
    try:
        second = cluster.start(name, "node")
        assert leftovers.find_leftovers(name)
        for running in (node_cluster, second):
            api_client.check_node_ready(running.kubeconfig, node.NODE_NAME)
            assert "coredns" in kubectl(running.kubeconfig, "get", "pods", "-n", "kube-system", "-o", "name")
    finally:
        cluster.stop(name)
    assert leftovers.find_leftovers(name) == []
    api_client.check_node_ready(node_cluster.kubeconfig, node.NODE_NAME)

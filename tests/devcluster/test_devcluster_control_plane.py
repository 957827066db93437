"""The control plane comes up without root, works like a usual cluster's, and leaves nothing."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from cluster_fixtures import missing_programs_skip
from kubernetes.client import ApiException
from manifests import build_object

from finetune_devcluster import api_client, cluster, errors, leftovers, processes, state, waiting
from finetune_devcluster.api_client import Kind

pytestmark = pytest.mark.contract

CONFIG_MAP = Kind("v1", "ConfigMap")


@pytest.fixture
def name() -> Iterator[str]:
    chosen = f"own-{secrets.token_hex(3)}"
    yield chosen
    cluster.stop(chosen)


def test_two_clusters_run_side_by_side_and_each_leaves_nothing(name: str, control_plane: cluster.Cluster) -> None:
    with missing_programs_skip():
        mine = cluster.start(name, "control-plane")
    processes_of_mine = processes.ProcessGroup(state.state_directory(name)).load()
    api_client.create_namespace(mine.kubeconfig, "only-here")
    with api_client.connect(control_plane.kubeconfig) as other, pytest.raises(ApiException, match="not found"):
        other.get(api_client.NAMESPACE, "only-here")
    cluster.stop(name)
    assert len(processes_of_mine) == 4
    assert not any(map(processes.is_running, processes_of_mine))
    assert leftovers.find_leftovers(name) == []
    assert cluster.load(control_plane.name) == control_plane


def test_starting_a_running_cluster_changes_nothing(control_plane: cluster.Cluster) -> None:
    before = processes.ProcessGroup(state.state_directory(control_plane.name)).load()
    assert cluster.start(control_plane.name, "control-plane") == control_plane
    assert processes.ProcessGroup(state.state_directory(control_plane.name)).load() == before


def test_a_cluster_of_another_level_under_the_same_name_is_refused(control_plane: cluster.Cluster) -> None:
    with pytest.raises(errors.DevclusterError, match="must have level node; run `down"):
        cluster.start(control_plane.name, "node")


def test_a_broken_cluster_is_made_anew(name: str) -> None:
    with missing_programs_skip():
        cluster.start(name, "control-plane")
    group = processes.ProcessGroup(state.state_directory(name))
    (etcd,) = (process for process in group.load() if process.name == "etcd")
    processes.stop_process(etcd, 0)
    with pytest.raises(errors.DevclusterError, match="not running"):
        cluster.load(name)
    cluster.start(name, "control-plane")
    group.check_running("etcd")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "a termination"])
def test_interrupting_a_start_leaves_nothing(name: str, number: signal.Signals, control_plane: cluster.Cluster) -> None:
    assert control_plane  # its start has built the programs: the interruption must meet a start, not a build
    command = [sys.executable, "-m", "finetune_devcluster", "up", "--name", name, "--level", "control-plane"]
    driver = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    begun = state.state_directory(name) / "logs" / "kube-apiserver.log"

    def check_begun() -> None:
        if not begun.exists():
            raise waiting.NotYetError(f"no {begun}")

    waiting.wait_for("first program", check_begun, 60.0)
    os.kill(driver.pid, number)
    assert driver.wait(timeout=60) != 0
    assert leftovers.find_leftovers(name) == []


def test_a_pod_that_breaks_the_pod_security_of_its_namespace_is_refused(control_plane: cluster.Cluster) -> None:
    name = f"restricted-{secrets.token_hex(3)}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    api_client.create_namespace(control_plane.kubeconfig, name, labels)
    container = {"name": "c", "image": "none", "securityContext": {"privileged": True}}
    pod = build_object(api_client.POD, "privileged", name, spec={"containers": [container]})
    with api_client.connect(control_plane.kubeconfig) as client:
        with pytest.raises(ApiException, match="violates PodSecurity"):
            client.create(pod)
        client.delete(api_client.NAMESPACE, name)


def test_a_namespace_of_a_test_takes_objects(control_plane: cluster.Cluster, namespace: str) -> None:
    with api_client.connect(control_plane.kubeconfig) as client:
        client.create(build_object(CONFIG_MAP, "x", namespace, data={"a": "b"}))
        assert client.get(CONFIG_MAP, "x", namespace)["data"] == {"a": "b"}


@pytest.mark.parametrize("name", ["", "UPPER", "-a", "a" * 33, "a/b"])
def test_a_name_that_no_cluster_may_have_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="must be 1 to 32"):
        state.state_directory(name)

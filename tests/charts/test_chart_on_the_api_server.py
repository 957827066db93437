"""The chart on a real API server, by the real Helm: install, upgrade, rights, and what an uninstall leaves.

It has an API server of its own: uninstalling takes the CRD away, and with it the FineTuneJobs of all other tests.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cluster_fixtures
import pytest
import yaml
from chart_rendering import CHART, NAMESPACE, RELEASE, REQUIRED, merge
from manifests import make_manifest

from finetune_api import crd
from finetune_devcluster import binaries, progress, waiting

pytestmark = pytest.mark.contract

CRD_NAME = crd.build_crd()["metadata"]["name"]
ACCOUNT = f"system:serviceaccount:{NAMESPACE}:{RELEASE}-finetune-operator"
DEADLINE_SECONDS = 30.0


@dataclass(frozen=True)
class Tools:
    """The real helm and kubectl, pointed at one API server."""

    programs: Path
    kubeconfig: Path
    home: Path

    def run(self, program: str, *arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.home), "KUBECONFIG": str(self.kubeconfig)}
        command = [str(self.programs / program), *arguments]
        return subprocess.run(command, input=text, env=environment, capture_output=True, text=True, check=False)

    def helm(self, *arguments: str, values: dict[str, Any] | None = None) -> str:
        """Run helm in the release's namespace with the required values and the given ones; it must succeed."""
        given = () if values is None else ("--values", "-")
        text = None if values is None else yaml.safe_dump(merge(REQUIRED, values))
        result = self.run("helm", *arguments, "--namespace", NAMESPACE, *given, text=text)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def kubectl(self, *arguments: str, text: str | None = None) -> str:
        result = self.run("kubectl", *arguments, text=text)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def get(self, *arguments: str) -> list[dict[str, Any]]:
        return list(json.loads(self.kubectl("get", *arguments, "--output", "json"))["items"])

    def can(self, user: str, verb: str, resource: str, *arguments: str) -> bool:
        """Ask the API server; a subresource follows a slash, which kubectl itself takes for the name of an object."""
        name, _, subresource = resource.partition("/")
        question = (verb, name, f"--subresource={subresource}", f"--as={user}", *arguments)
        return self.run("kubectl", "auth", "can-i", *question).stdout.strip() == "yes"


@pytest.fixture(scope="module")
def own_tools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tools]:
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    with cluster_fixtures.shared_cluster("control-plane", f"chart{worker}") as running:
        programs = binaries.build(progress.Steps(quiet=True))
        yield Tools(programs, running.kubeconfig, tmp_path_factory.mktemp("home"))


@pytest.fixture
def tools(own_tools: Tools) -> Iterator[Tools]:
    """Helm and kubectl, a namespace that enforces the restricted standard, and afterwards nothing of the chart."""
    enforced = {"pod-security.kubernetes.io/enforce": "restricted"}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": enforced}}
    own_tools.kubectl("apply", "--filename", "-", text=json.dumps(namespace))
    yield own_tools
    own_tools.run("helm", "uninstall", RELEASE, "--namespace", NAMESPACE, "--wait")
    own_tools.kubectl("delete", "crd", CRD_NAME, "--ignore-not-found")


def _install(tools: Tools, values: dict[str, Any]) -> None:
    tools.helm("install", RELEASE, str(CHART), values=values)
    tools.kubectl("wait", "--for=condition=Established", f"crd/{CRD_NAME}", "--timeout=30s")


def _create_job(tools: Tools) -> str:
    tools.kubectl("create", "--filename", "-", text=json.dumps(make_manifest()))
    [job] = tools.get("finetunejobs", "--all-namespaces")
    return str(job["metadata"]["uid"])


def _list_installed(tools: Tools) -> set[str]:
    """Name everything of the release that is on the API server; what is not namespaced has no namespace."""
    kinds = (
        "deployments,services,serviceaccounts,configmaps,networkpolicies,poddisruptionbudgets,roles,rolebindings,"
        "clusterroles,clusterrolebindings,validatingadmissionpolicies,validatingadmissionpolicybindings,crds"
    )
    label = f"app.kubernetes.io/instance={RELEASE}"
    objects = tools.get(kinds, "--all-namespaces", "--selector", label)
    return {f"{item['kind']} {item['metadata']['name']}" for item in objects}


def test_lint_is_silent_when_strict(own_tools: Tools) -> None:
    out = own_tools.helm("lint", str(CHART), "--strict", values={})
    assert out.splitlines()[1:] == [
        "[INFO] Chart.yaml: icon is recommended",
        "",
        "1 chart(s) linted, 0 chart(s) failed",
    ]


def test_an_older_kubernetes_is_refused(own_tools: Tools) -> None:
    text = yaml.safe_dump(REQUIRED)
    arguments = ("template", RELEASE, str(CHART), "--values", "-", "--kube-version")
    old, oldest_supported = (own_tools.run("helm", *arguments, version, text=text) for version in ("1.30.9", "1.31.0"))
    assert "chart requires kubeVersion: >=1.31.0-0 which is incompatible with Kubernetes v1.30.9" in old.stderr
    assert (old.returncode, oldest_supported.returncode) == (1, 0)


def test_an_api_server_without_admission_policies_gets_none_and_is_told(own_tools: Tools) -> None:
    text = yaml.safe_dump(REQUIRED)
    arguments = ("template", RELEASE, str(CHART), "--values", "-")
    # With --api-versions helm knows the kinds of a cluster, as it does when it installs.
    without = ("--api-versions", "apps/v1/Deployment")
    kind = ("--api-versions", "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy")
    found = {
        versions: own_tools.run("helm", *arguments, *versions, text=text).stdout.count(
            "kind: ValidatingAdmissionPolicy"
        )
        for versions in ((), without, without + kind)
    }
    assert found == {(): 2, without: 0, without + kind: 2}


def test_an_install_makes_these_objects_and_a_pod_that_admission_lets_in(tools: Tools) -> None:
    _install(tools, {})
    assert _list_installed(tools) == {
        f"CustomResourceDefinition {CRD_NAME}",
        f"Deployment {RELEASE}-finetune-operator",
        f"ConfigMap {RELEASE}-finetune-operator-admission",
        f"NetworkPolicy {RELEASE}-finetune-operator",
        f"PodDisruptionBudget {RELEASE}-finetune-operator",
        f"ValidatingAdmissionPolicy {RELEASE}-finetune-operator",
        f"ValidatingAdmissionPolicyBinding {RELEASE}-finetune-operator",
        f"Service {RELEASE}-finetune-operator",
        f"ServiceAccount {RELEASE}-finetune-operator",
        f"ClusterRole {RELEASE}-finetune-operator",
        f"ClusterRole {RELEASE}-finetune-operator-edit",
        f"ClusterRole {RELEASE}-finetune-operator-view",
        f"ClusterRoleBinding {RELEASE}-finetune-operator",
    }
    [pod] = waiting.wait_for("the operator's pod", lambda: _find_pods(tools), DEADLINE_SECONDS)
    assert [item["image"] for item in pod["spec"]["containers"]] == ["registry.example.com/finetune-operator:0.1.0"]


def _find_pods(tools: Tools) -> list[dict[str, Any]]:
    pods = tools.get("pods", "--namespace", NAMESPACE)
    if not pods:
        replica_sets = tools.get("replicasets", "--namespace", NAMESPACE)
        raise waiting.NotYetError(str([item.get("status") for item in replica_sets]))
    return pods


def test_an_upgrade_changes_the_operator_and_leaves_the_jobs(tools: Tools) -> None:
    _install(tools, {})
    uid = _create_job(tools)
    tools.helm("upgrade", RELEASE, str(CHART), values={"logging": {"level": "DEBUG"}})
    [deployment] = tools.get("deployments", "--namespace", NAMESPACE)
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    assert {"name": "FINETUNE_LOG_LEVEL", "value": "DEBUG"} in container["env"]
    tools.helm("rollback", RELEASE, "1")
    releases = json.loads(tools.helm("history", RELEASE, "--output", "json"))
    assert [(item["revision"], item["status"]) for item in releases] == [
        (1, "superseded"),
        (2, "superseded"),
        (3, "deployed"),
    ]
    assert [item["metadata"]["uid"] for item in tools.get("finetunejobs", "--all-namespaces")] == [uid]


def test_an_uninstall_leaves_the_crd_and_the_jobs_and_the_next_install_takes_them_over(tools: Tools) -> None:
    _install(tools, {})
    uid = _create_job(tools)
    tools.helm("uninstall", RELEASE, "--wait")
    assert _list_installed(tools) == {f"CustomResourceDefinition {CRD_NAME}"}
    _install(tools, {})
    assert [item["metadata"]["uid"] for item in tools.get("finetunejobs", "--all-namespaces")] == [uid]


def test_an_uninstall_without_keeping_deletes_the_crd_and_every_job(tools: Tools) -> None:
    _install(tools, {"crds": {"keep": False}})
    _create_job(tools)
    tools.helm("uninstall", RELEASE, "--wait")
    assert _list_installed(tools) == set()
    _install(tools, {})
    assert tools.get("finetunejobs", "--all-namespaces") == []


def test_keeping_can_be_decided_later(tools: Tools) -> None:
    _install(tools, {"crds": {"keep": False}})
    tools.helm("upgrade", RELEASE, str(CHART), values={"crds": {"keep": True}})
    tools.helm("uninstall", RELEASE, "--wait")
    assert _list_installed(tools) == {f"CustomResourceDefinition {CRD_NAME}"}


def test_in_namespaces_the_operator_has_rights_only_there(tools: Tools) -> None:
    for name in ("team-a", "team-b"):
        tools.kubectl("create", "namespace", name)
    _install(tools, {"watch": {"namespaces": ["team-a"]}, "userRoles": {"create": False}})
    asked = ("team-a", "team-b", "default")
    found = {name: tools.can(ACCOUNT, "create", "jobs.batch", "--namespace", name) for name in asked}
    assert found == {"team-a": True, "team-b": False, "default": False}
    assert not tools.can(ACCOUNT, "list", "finetunejobs.finetune.dev", "--all-namespaces")
    assert {name.partition(" ")[0] for name in _list_installed(tools)} == {
        "CustomResourceDefinition",
        "ConfigMap",
        "Deployment",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "Service",
        "ServiceAccount",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
        "Role",
        "RoleBinding",
    }


def test_a_second_release_is_told_that_the_crd_is_taken(tools: Tools) -> None:
    _install(tools, {})
    values = yaml.safe_dump(REQUIRED)
    second = ("install", "second", str(CHART), "--namespace", "default", "--values", "-")
    refused = tools.run("helm", *second, text=values)
    accepted = tools.run("helm", *second, "--set", "crds.install=false,userRoles.create=false", text=values)
    removed = tools.run("helm", "uninstall", "second", "--namespace", "default", "--wait")
    assert refused.returncode == 1
    assert f'CustomResourceDefinition "{CRD_NAME}" in namespace "" exists and cannot be imported' in refused.stderr
    assert (accepted.returncode, removed.returncode) == (0, 0), accepted.stderr
    assert f"CustomResourceDefinition {CRD_NAME}" in _list_installed(tools)


@pytest.mark.parametrize(
    ("verb", "resource", "want"),
    [
        ("list", "finetunejobs.finetune.dev", True),
        ("patch", "finetunejobs.finetune.dev/status", True),
        ("create", "jobs.batch", True),
        ("delete", "jobs.batch", True),
        ("watch", "pods", True),
        ("create", "events", True),
        ("list", "events", True),
        ("update", "finetunejobs.finetune.dev", False),
        ("delete", "finetunejobs.finetune.dev", False),
        ("get", "secrets", False),
        ("list", "secrets", False),
        ("create", "pods", False),
        ("delete", "pods", False),
        ("get", "pods/log", False),
        ("create", "pods/exec", False),
        ("get", "configmaps", False),
        ("create", "serviceaccounts/token", False),
        ("create", "rolebindings", False),
        ("get", "nodes", False),
        ("list", "namespaces", False),
    ],
)
def test_the_operator_may_do_what_it_must_and_nothing_else(
    verb: str, resource: str, want: bool, installed: Tools
) -> None:
    assert installed.can(ACCOUNT, verb, resource, "--namespace", "default") is want


@pytest.fixture(scope="module")
def installed(own_tools: Tools) -> Iterator[Tools]:
    """One install for all questions about rights; they come last in this module, because it stays until the end."""
    own_tools.run("kubectl", "create", "namespace", NAMESPACE)
    _install(own_tools, {})
    yield own_tools
    own_tools.helm("uninstall", RELEASE, "--wait")
    own_tools.kubectl("delete", "crd", CRD_NAME)


@pytest.mark.parametrize(
    ("role", "verb", "want"),
    [("edit", "create", True), ("edit", "delete", True), ("view", "list", True), ("view", "create", False)],
)
def test_users_with_the_roles_of_kubernetes_may_use_jobs(role: str, verb: str, want: bool, installed: Tools) -> None:
    binding = ("create", "rolebinding", f"{role}-{verb}", f"--clusterrole={role}", f"--user={role}-{verb}")
    installed.kubectl(*binding, "--namespace", "default")

    def check() -> None:
        # The controller that aggregates roles needs a moment; `view` is the slower proof for what must not be there.
        if not installed.can(f"{role}-{verb}", "list", "finetunejobs.finetune.dev", "--namespace", "default"):
            raise waiting.NotYetError(f"{role} can't list yet")

    waiting.wait_for(f"the role {role}", check, DEADLINE_SECONDS)
    assert installed.can(f"{role}-{verb}", verb, "finetunejobs.finetune.dev", "--namespace", "default") is want

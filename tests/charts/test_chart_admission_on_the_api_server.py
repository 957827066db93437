"""The chart's ValidatingAdmissionPolicy on a real API server: the operator's rules in the operator's words.

Two releases stand side by side, each for a namespace of its own: one with the defaults, one whose lists are short.
"""

import json
from collections.abc import Iterator
from typing import Any

import cluster_fixtures
import operator_driver
import pytest
from chart_rendering import REQUIRED, merge, render
from kubernetes.client import ApiException
from manifests import Manifest, make_manifest

from finetune_api.kinds.finetunejob.spec import FineTuneJobSpec
from finetune_devcluster import api_client, waiting
from finetune_devcluster.api_client import Client
from finetune_operator.jobs.policies import admission
from finetune_operator.settings import Settings

pytestmark = pytest.mark.contract

RELEASES: dict[str, dict[str, Any]] = {
    "the defaults": {},
    "short lists": {
        "allowedImages": ["registry.example.com/team/*", "other.example.com/*:1"],
        "allowedPriorityClasses": ["batch-*"],
        "allowedRuntimeClasses": ["nvidia"],
        "allowedServiceAccounts": ["trainer"],
        "allowedSecrets": ["s3-*"],
        "allowedEnvironment": ["WANDB_*"],
        "allowedEndpoints": ["*.example.com", "169.254.169.254", "kubernetes.default"],
        "insecureEndpoints": [],
    },
}
SETTINGS = {
    "the defaults": Settings(trainer_image=REQUIRED["trainer"]["image"]),
    "short lists": Settings(
        trainer_image=REQUIRED["trainer"]["image"],
        allowed_images=("registry.example.com/team/*", "other.example.com/*:1"),
        allowed_priority_classes=("batch-*",),
        allowed_runtime_classes=("nvidia",),
        allowed_service_accounts=("trainer",),
        allowed_secrets=("s3-*",),
        allowed_environment=("WANDB_*",),
        allowed_endpoints=("*.example.com", "169.254.169.254", "kubernetes.default"),
        insecure_endpoints=(),
    ),
}
JOBS: list[tuple[str, Any]] = [
    ("trainer.image", REQUIRED["trainer"]["image"]),
    ("trainer.image", "registry.example.com/team/x:1"),
    ("trainer.image", "registry.example.com/team/deeper/x:1"),
    ("trainer.image", "registry.example.com:5000/team/x:1"),
    ("trainer.image", "other.example.com/x:1"),
    ("trainer.image", "other.example.com/x:1@sha256:" + "a" * 64),
    ("placement.priorityClassName", "batch-low"),
    ("placement.priorityClassName", "high"),
    ("placement.runtimeClassName", "nvidia"),
    ("placement.runtimeClassName", "runc"),
    ("placement.serviceAccountName", "trainer"),
    ("placement.serviceAccountName", "trainer-admin"),
    ("storage.secretName", "s3-credentials"),
    ("storage.secretName", "root"),
    ("trainer.imagePullSecrets", [{"name": "s3-pull"}, {"name": "root"}, {"name": "admin"}]),
    ("trainer.env", [{"name": "NCCL_DEBUG", "value": "INFO"}, {"name": "TZ", "value": "UTC"}]),
    ("trainer.env", [{"name": "WANDB_MODE", "value": "offline"}]),
    (
        "trainer.env",
        [{"name": "TZ", "value": "UTC"}, {"name": "HTTPS_PROXY", "value": "x"}, {"name": "A", "value": ""}],
    ),
    *(
        ("storage.endpointURL", url)
        for url in (
            "https://s3.example.com",
            "https://S3.EXAMPLE.COM:9000",
            "https://s3.example.com.evil.com",
            "https://10.0.0.5:9000",
            "https://kubernetes",
            "https://kubernetes.default",
            "https://KUBERNETES.default.svc.",
            "https://metadata.google.internal",
            "https://localhost:9000",
            "https://s3.localhost",
            "https://169.254.169.254",
            "https://169.254.170.23",
            "https://100.100.100.200",
            "https://127.0.0.1",
            "https://0.0.0.0",
            "https://224.0.0.1",
            "https://2852039166",
            "https://0xa9fea9fe",
            "https://169.254.43518",
            "https://0251.0376.0251.0376",
            "http://s3.demo.svc:8333",
            "http://s3.example.com",
            "http://169.254.169.254",
        )
    ),
]


@pytest.fixture(scope="module")
def client(control_plane: Any) -> Iterator[Client]:
    with api_client.connect(control_plane.kubeconfig) as client:
        operator_driver.install_crd(client)
        yield client


@pytest.fixture(scope="module")
def namespaces(client: Client, control_plane: Any) -> Iterator[dict[str, str]]:
    """The namespace of each release, once its policy is at work there."""
    fresh = cluster_fixtures.fresh_namespace
    with fresh(control_plane.kubeconfig) as first, fresh(control_plane.kubeconfig) as second:
        chosen = dict(zip(RELEASES, (first, second), strict=True))
        installed = [item for name, space in chosen.items() for item in _render_policy(name, space)]
        for item in installed:
            client.apply(item)
        for name, space in chosen.items():
            waiting.wait_for("the policy at work", lambda name=name, space=space: _probe(client, name, space), 30.0)
        yield chosen
        for item in installed:
            kind = api_client.Kind(item["apiVersion"], item["kind"])
            client.delete(kind, item["metadata"]["name"], item["metadata"].get("namespace"))


def _render_policy(name: str, namespace: str) -> list[Manifest]:
    objects = render(merge(RELEASES[name], {"watch": {"namespaces": [namespace]}}), release=namespace)
    found = [item for item in objects if item["kind"] == "ConfigMap" or "Admission" in item["kind"]]
    assert len(found) == 3
    for item in found:
        if item["kind"] == "ConfigMap":
            item["metadata"]["namespace"] = namespace
        if item["kind"].endswith("Binding"):
            item["spec"]["paramRef"]["namespace"] = namespace
    return found


def _probe(client: Client, name: str, namespace: str) -> None:
    manifest = make_manifest("probe", namespace, spec__placement__priorityClassName="probe")
    found = _create(client, manifest)
    if found != _find_refusals(name, manifest):
        raise waiting.NotYetError(found)
    if found == "":
        client.delete(operator_driver.FINE_TUNE_JOB, "probe", namespace)


def _create(client: Client, manifest: Manifest) -> str:
    """Create a job and return why it was refused; empty: it was not."""
    try:
        client.create(manifest)
    except ApiException as error:
        message = str(json.loads(error.body)["message"])
        _, said, rules = message.partition("denied request: ")
        return rules if said else message
    return ""


def _find_refusals(name: str, manifest: Manifest) -> str:
    spec = FineTuneJobSpec.model_validate(manifest["spec"])
    found = admission.find_refusals(spec, recorded_image="", settings=SETTINGS[name])
    return "; ".join(map(str, found))


@pytest.mark.parametrize("release", RELEASES)
def test_the_policy_refuses_what_the_operator_would_refuse_in_its_words(
    release: str, client: Client, namespaces: dict[str, str]
) -> None:
    said, want = {}, {}
    for number, (path, value) in enumerate(JOBS):
        key = f"{path} {value}"
        manifest = make_manifest(f"job-{number}", namespaces[release], **{f"spec.{path}": value})
        said[key], want[key] = _create(client, manifest), _find_refusals(release, manifest)
    assert said == want
    assert {bool(text) for text in said.values()} == {True, False}


def test_all_that_a_job_may_not_name_is_said_at_once(client: Client, namespaces: dict[str, str]) -> None:
    edits = {
        "spec.trainer": {"image": "evil.example.com/x", "env": [{"name": "OPENSSL_CONF", "value": "/scratch/x"}]},
        "spec.placement": {"priorityClassName": "high", "runtimeClassName": "runc", "serviceAccountName": "admin"},
        "spec.storage": {"secretName": "root", "endpointURL": "http://127.0.0.1:9000"},
    }
    manifest = make_manifest("everything", namespaces["short lists"], **edits)
    said = _create(client, manifest)
    assert said == _find_refusals("short lists", manifest)
    assert said.count(" must ") == 9


def test_a_job_that_began_under_longer_lists_can_still_be_suspended(client: Client, namespaces: dict[str, str]) -> None:
    namespace = namespaces["the defaults"]
    config = api_client.Kind("v1", "ConfigMap")
    name = f"{namespace}-finetune-operator-admission"
    client.patch(config, name, {"data": {"allowedPriorityClasses": "once"}}, namespace)
    manifest = make_manifest("longer", namespace, spec__placement__priorityClassName="once")

    def create() -> None:
        if said := _create(client, manifest):
            raise waiting.NotYetError(said)

    waiting.wait_for("the longer list at work", create, 30.0)
    client.patch(config, name, {"data": {"allowedPriorityClasses": ""}}, namespace)

    def refuse() -> None:
        if not (said := _create(client, manifest | {"metadata": manifest["metadata"] | {"name": "shorter"}})):
            client.delete(operator_driver.FINE_TUNE_JOB, "shorter", namespace)
            raise waiting.NotYetError(said)

    waiting.wait_for("the shorter list at work", refuse, 30.0)
    edited = client.patch(
        operator_driver.FINE_TUNE_JOB, "longer", {"spec": {"runPolicy": {"suspend": True}}}, namespace
    )
    assert edited["spec"]["runPolicy"]["suspend"] is True


def test_in_a_namespace_of_another_operator_the_policy_says_nothing(
    client: Client, namespaces: dict[str, str], namespace: str
) -> None:
    assert _create(client, make_manifest("elsewhere", namespace, spec__placement__priorityClassName="high")) == ""


def test_the_expressions_fit_the_types_of_job_and_lists(client: Client, namespaces: dict[str, str]) -> None:
    kind = api_client.Kind("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy")

    def check() -> Manifest:
        policy = client.get(kind, f"{namespaces['the defaults']}-finetune-operator")
        if policy.get("status", {}).get("observedGeneration") != policy["metadata"]["generation"]:
            raise waiting.NotYetError(str(policy.get("status")))
        return policy

    checked = waiting.wait_for("the API server's check of the expressions", check, 60.0)
    assert checked["status"]["typeChecking"] == {}

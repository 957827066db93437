"""A pod that the kubelet can't start says nothing in its status but ContainerCreating: the run names the cause."""

from collections.abc import Iterator
from typing import Any

import pytest
from manifests import Manifest, make_manifest

from finetune_api import group, run
from finetune_api.kinds.finetunejob.status import ConditionType, FineTuneJobStatus, find_condition, is_true
from finetune_demo import runs
from finetune_devcluster.api_client import Kind

pytestmark = pytest.mark.cluster

NAMESPACE = "hanging"
DEADLINE_SECONDS = 90.0
"""The kubelet tries for some seconds before it tells; then the run has to say it within a minute."""

_ADMISSION = "admissionregistration.k8s.io/v1"
_INJECTED = f"""Object{{spec: Object.spec{{
  volumes: [Object.spec.volumes{{
    name: "injected", configMap: Object.spec.volumes.configMap{{name: "no-such-config"}}}}],
  containers: [Object.spec.containers{{
    name: "{run.CONTAINER_NAME}",
    volumeMounts: [Object.spec.containers.volumeMounts{{name: "injected", mountPath: "/injected"}}]}}]}}}}"""


def _build_injection() -> list[Manifest]:
    """Build what adds a volume to the pods of one run, as the webhooks of service meshes and secret stores do."""
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    policy = {
        "failurePolicy": "Fail",
        "reinvocationPolicy": "Never",
        "matchConstraints": {
            "resourceRules": [rule],
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": NAMESPACE}},
            "objectSelector": {"matchLabels": {group.LABEL_JOB: "no-volume"}},
        },
        "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": _INJECTED}}],
    }
    metadata = {"name": "inject-a-volume"}
    return [
        {"apiVersion": _ADMISSION, "kind": "MutatingAdmissionPolicy", "metadata": metadata, "spec": policy},
        {
            "apiVersion": _ADMISSION,
            "kind": "MutatingAdmissionPolicyBinding",
            "metadata": metadata,
            "spec": {"policyName": "inject-a-volume"},
        },
    ]


CASES: dict[str, tuple[dict[str, Any], str]] = {
    "no-runtime": ({"spec__placement": {"runtimeClassName": "no-such-runtime"}}, "no-such-handler"),
    "no-volume": ({}, "no-such-config"),
}
"""Edits of a job by its name, and what the message must name."""


@pytest.fixture(scope="module")
def statuses(product: Any) -> Iterator[dict[str, FineTuneJobStatus]]:
    """The runs as soon as each is stalled."""
    product.make_namespace(NAMESPACE)
    made = [
        {
            "apiVersion": "node.k8s.io/v1",
            "kind": "RuntimeClass",
            "metadata": {"name": "no-such-runtime"},
            "handler": "no-such-handler",
        },
        *_build_injection(),
    ]
    for manifest in made:
        product.apply(manifest)
    for name, (edits, _) in CASES.items():
        job = product.make_job(make_manifest(name, NAMESPACE, spec__output__uri=f"s3://runs/{name}", **edits))
        job["spec"]["resources"] |= {"cpu": "100m"}
        runs.apply_run(product.client, job)
    yield runs.wait_until(
        product.client,
        NAMESPACE,
        list(CASES),
        is_reached=lambda status: is_true(status.conditions, ConditionType.STALLED),
        deadline_seconds=DEADLINE_SECONDS,
    )
    product.delete_namespace(NAMESPACE)
    for manifest in made:
        product.client.delete(Kind(manifest["apiVersion"], manifest["kind"]), manifest["metadata"]["name"])


@pytest.mark.parametrize("name", CASES)
def test_a_pod_that_can_not_be_started_stalls_its_run_with_the_kubelet_s_words(
    name: str, statuses: dict[str, FineTuneJobStatus], product: Any
) -> None:
    status = statuses[name]
    stalled = find_condition(status.conditions, ConditionType.STALLED)
    assert stalled is not None
    assert CASES[name][1] in stalled.message
    assert not runs.is_finished(status)
    [pod] = product.list_pods(NAMESPACE, name)
    [container] = pod["status"].get("containerStatuses", [{"state": {"waiting": {"reason": "ContainerCreating"}}}])
    assert container["state"]["waiting"]["reason"] == "ContainerCreating", "the pod itself doesn't say it"
    assert stalled.reason in product.list_events(NAMESPACE, name)

"""A pod that the kubelet can't start says nothing in its status but ContainerCreating: the run names the cause."""

from collections.abc import Iterator
from typing import Any

import pytest
from manifests import make_manifest

from finetune_api.kinds.finetunejob.status import ConditionType, FineTuneJobStatus
from finetune_api.kinds.status_conditions import find_condition, is_true
from finetune_demo import runs
from finetune_devcluster.api_client import Kind

pytestmark = pytest.mark.cluster

NAMESPACE = "hanging"
DEADLINE_SECONDS = 90.0
"""The kubelet tries for some seconds before it tells; then the run has to say it within a minute."""

CASES: dict[str, tuple[dict[str, Any], str]] = {
    "no-runtime": ({"spec__placement": {"runtimeClassName": "no-such-runtime"}}, "no-such-handler"),
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

"""The CRD on a real API server: what it refuses, with which field, and what may still be edited."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import operator_driver
import pytest
import yaml
from field_ends import REFUSED, build_manifest
from kubernetes.client import ApiException
from malformed import MALFORMED, Malformed
from manifests import REMOVED, Manifest, edit_manifest, make_manifest

from finetune_api import rules, validation
from finetune_devcluster import api_client
from finetune_devcluster.api_client import Client

pytestmark = pytest.mark.contract

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def client(control_plane: Any) -> Iterator[Client]:
    """A client of an API server that knows the CRD."""
    with api_client.connect(control_plane.kubeconfig) as client:
        operator_driver.install_crd(client)
        yield client


def _create(client: Client, manifest: Manifest, namespace: str) -> Any:
    return client.create(edit_manifest(manifest, "metadata.namespace", namespace))


def _refusals(error: ApiException) -> list[tuple[str, str]]:
    causes = json.loads(error.body)["details"].get("causes", [])
    return [(cause.get("field", ""), cause.get("message", "")) for cause in causes]


@pytest.mark.parametrize("case", MALFORMED, ids=lambda case: case.sentence)
def test_a_malformed_object_is_refused_with_the_field_named(case: Malformed, client: Client) -> None:
    manifest = build_manifest(case)
    if case.server_accepts:
        created = _create(client, manifest, "kube-public")
        assert case.path.rsplit(".", 1)[-1] not in str(created["spec"])
        client.delete(operator_driver.FINE_TUNE_JOB, created["metadata"]["name"], "kube-public")
        return
    with pytest.raises(ApiException) as caught:
        client.create(manifest)
    assert (case.server_path or case.want_path) in [field for field, _ in _refusals(caught.value)], caught.value


def test_every_rule_across_fields_is_broken_by_some_malformed_object() -> None:
    broken = {
        error.message for case in (*MALFORMED, *REFUSED) for error in validation.validate_manifest(build_manifest(case))
    }
    assert [rule.path for rule in rules.RULES if rule.message not in broken] == []


def test_defaults_are_filled_in_and_the_status_waits_to_be_observed(client: Client, namespace: str) -> None:
    created = _create(client, make_manifest(), namespace)
    assert created["status"] == {"observedGeneration": -1}
    assert created["spec"]["method"] == {
        "kind": "LoRA",
        "quantization": "None",
        "lora": {
            "rank": 8,
            "alpha": 16,
            "dropout": "0.05",
            "targetModules": ["all-linear"],
            "variant": "Standard",
        },
    }
    assert created["spec"]["runPolicy"]["backoffLimit"] == 3


EXAMPLES = sorted((ROOT / "examples").glob("*/job.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.parent.name)
def test_every_example_is_accepted(path: Path, client: Client, namespace: str) -> None:
    manifest = yaml.safe_load(path.read_text())
    assert _create(client, manifest, namespace)["metadata"]["name"] == path.parent.name


def test_there_are_five_examples() -> None:
    assert len(EXAMPLES) == 5


IMMUTABLE_EDITS = [
    ("spec.task", "CausalLM"),
    ("spec.model.uri", "s3://models/other/"),
    ("spec.data.0.train.uri", "s3://datasets/other.jsonl"),
    ("spec.data.0.validation", {"uri": "s3://datasets/validation.jsonl"}),
    ("spec.split.validation", "0.2"),
    ("spec.method.lora.rank", 16),
    ("spec.training.epochs", "3"),
    ("spec.evaluation.compareWithBase", False),
    ("spec.output.uri", "s3://runs/other"),
    ("spec.storage.secretName", "other"),
    ("spec.resources.gpus", 2),
    ("spec.placement.queueName", "team"),
    ("spec.trainer.env", [{"name": "A", "value": "b"}]),
    ("spec.runPolicy.backoffLimit", 5),
    ("spec.runPolicy.activeDeadlineSeconds", 60),
]


@pytest.mark.parametrize(("path", "value"), IMMUTABLE_EDITS, ids=[path for path, _ in IMMUTABLE_EDITS])
def test_an_edit_of_what_defines_the_run_is_refused(path: str, value: object, client: Client, namespace: str) -> None:
    created = _create(client, make_manifest(), namespace)
    with pytest.raises(ApiException) as caught:
        client.replace(edit_manifest(created, path, value))
    field = ".".join(path.split(".")[: 3 if path.startswith("spec.runPolicy") else 2])
    assert field in [found for found, _ in _refusals(caught.value)], caught.value


FREE_EDITS = [
    ("spec.runPolicy.suspend", True),
    ("spec.runPolicy.ttlSecondsAfterFinished", 5),
    ("spec.runPolicy.activeDeadlineSeconds", 100_000),
    ("metadata.labels", {"team": "research"}),
]


@pytest.mark.parametrize(("path", "value"), FREE_EDITS, ids=[path for path, _ in FREE_EDITS])
def test_what_may_change_on_a_running_job_is_accepted(path: str, value: object, client: Client, namespace: str) -> None:
    created = _create(client, make_manifest(), namespace)
    client.replace(edit_manifest(created, path, value))


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_finished_run_never_changes_its_phase(phase: str, client: Client, namespace: str) -> None:
    created = _create(client, make_manifest(), namespace)
    name = created["metadata"]["name"]
    kind = operator_driver.FINE_TUNE_JOB
    client.patch(kind, name, {"status": {"phase": phase}}, namespace, subresource="status")
    for later in ("Training", None):
        with pytest.raises(ApiException) as caught:
            client.patch(kind, name, {"status": {"phase": later}}, namespace, subresource="status")
        assert "a finished run never changes its phase" in str(caught.value)
    client.delete(kind, name, namespace, propagation="Foreground")


def test_removing_a_defaulted_part_puts_the_default_back(client: Client, namespace: str) -> None:
    created = _create(client, make_manifest(), namespace)
    replaced = client.replace(edit_manifest(created, "spec.split", REMOVED))
    assert replaced["spec"]["split"] == {"validation": "0.1", "test": "0", "stratify": True}

"""What bad input gets, through the whole path: a status with reason, message and remedy, and nothing published."""

from collections.abc import Iterator
from typing import Any

import bad_inputs
import pytest
from bad_inputs import BAD_INPUTS, BUCKET, BadInput
from manifests import Manifest, edit_manifest, make_manifest

from finetune_api import validation
from finetune_api.kinds.finetunejob.status import ConditionType, FineTuneJobStatus, Reason
from finetune_api.kinds.status_conditions import find_condition, is_true
from finetune_api.rules import limits
from finetune_demo import runs

# Twenty-five runs; the deadline below says what they were waiting for.
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]

NAMESPACE = "bad-input"
DEADLINE_SECONDS = 600.0


def _make_job(case: BadInput, product: Any) -> Manifest:
    values = {
        "prefix": f"s3://{BUCKET}/{case.name}",
        "registry": product.registry,
        "s3_host": f"s3.{NAMESPACE}.svc",
    }
    manifest = product.make_job(
        make_manifest(
            name=case.name,
            namespace=NAMESPACE,
            spec__data=[
                {
                    "name": "movies",
                    "train": {"uri": f"s3://{BUCKET}/{case.name}/train.jsonl"},
                    "columns": {"text": "sentence", "label": "label"},
                }
            ],
            spec__output__uri=f"s3://runs/{case.name}",
        )
    )
    if case.stalls and case.want_reason != Reason.UNSCHEDULABLE:
        # Its pod holds its place on the node for as long as the others run, and never computes.
        manifest = edit_manifest(manifest, "spec.resources.cpu", limits.MIN_CPU)
    for path, value in case.edits.items():
        manifest = edit_manifest(manifest, path, _fill(value, values))
    return manifest


def _fill(value: Any, values: dict[str, str]) -> Any:
    if isinstance(value, str):
        return value.format(**values)
    if isinstance(value, dict):
        return {key: _fill(item, values) for key, item in value.items()}
    return value


def _has_begun(status: FineTuneJobStatus) -> bool:
    return bool(status.attempts)


def _is_stalled(status: FineTuneJobStatus) -> bool:
    return is_true(status.conditions, ConditionType.STALLED)


def _is_stalled_as_wanted(status: FineTuneJobStatus, case: BadInput) -> bool:
    """Tell the wait that only somebody can end from the wait for room on the node, which every run goes through."""
    stalled = find_condition(status.conditions, ConditionType.STALLED)
    return _is_stalled(status) and stalled is not None and all(text in stalled.message for text in case.want_message)


@pytest.fixture(scope="module")
def statuses(product: Any) -> Iterator[dict[str, FineTuneJobStatus]]:
    """All bad inputs applied at once, each as far as it gets."""
    product.make_namespace(NAMESPACE)
    product.upload("models", bad_inputs.list_models(*product.base_models()))
    for case in BAD_INPUTS:
        files = {"train.jsonl": bad_inputs.write_jsonl(bad_inputs.make_rows()), **case.files()}
        product.upload(BUCKET, {f"{case.name}/{key}": content for key, content in files.items()})
    # Those that take longest have their pods first; the others fit beside them.
    for is_slow in (True, False):
        cases = [case for case in BAD_INPUTS if case.is_slow == is_slow]
        for case in cases:
            runs.apply_run(product.client, _make_job(case, product))
        names = [case.name for case in cases]
        runs.wait_until(product.client, NAMESPACE, names, is_reached=_has_begun, deadline_seconds=DEADLINE_SECONDS)
    stalling = [case for case in BAD_INPUTS if case.stalls]
    failing = [case.name for case in BAD_INPUTS if not case.stalls]
    runs.wait_until(product.client, NAMESPACE, failing, deadline_seconds=DEADLINE_SECONDS)
    for case in stalling:
        runs.wait_until(
            product.client,
            NAMESPACE,
            [case.name],
            is_reached=lambda status, case=case: _is_stalled_as_wanted(status, case),
            deadline_seconds=DEADLINE_SECONDS,
        )
    yield runs.fetch_statuses(product.client, NAMESPACE)
    product.delete_namespace(NAMESPACE)


@pytest.mark.parametrize("case", [case for case in BAD_INPUTS if not case.stalls], ids=lambda case: case.name)
def test_bad_input_fails_with_reason_message_and_remedy(
    case: BadInput, statuses: dict[str, FineTuneJobStatus], product: Any
) -> None:
    status = statuses[case.name]
    assert status.failure is not None
    assert (status.failure.reason, status.failure.exit_code) == (case.want_reason, case.want_exit_code)
    assert [text for text in case.want_message if text not in status.failure.message] == []
    assert "Traceback" not in status.failure.message
    assert status.failure.remedy
    assert is_true(status.conditions, ConditionType.FAILED)
    assert is_true(status.conditions, ConditionType.STALLED)
    assert not is_true(status.conditions, ConditionType.RECONCILING)
    assert [
        key for key in product.list_keys("runs", case.name) if key.endswith(("manifest.json", "current.json"))
    ] == []


@pytest.mark.parametrize("case", [case for case in BAD_INPUTS if case.stalls], ids=lambda case: case.name)
def test_what_somebody_must_repair_stalls_the_run_with_reason_and_name(
    case: BadInput, statuses: dict[str, FineTuneJobStatus]
) -> None:
    stalled = find_condition(statuses[case.name].conditions, ConditionType.STALLED)
    assert stalled is not None
    assert stalled.reason == case.want_reason
    assert [text for text in case.want_message if text not in stalled.message] == []
    assert not runs.is_finished(statuses[case.name])


def test_every_bad_job_passes_admission_except_by_its_input(product: Any) -> None:
    refused = {case.name: validation.validate_manifest(_make_job(case, product)) for case in BAD_INPUTS}
    assert {name: found for name, found in refused.items() if found} == {}
    assert len({case.name for case in BAD_INPUTS}) == len(BAD_INPUTS) == 25


def test_a_quota_that_refuses_the_pod_stalls_the_run(product: Any) -> None:
    product.make_namespace("small-quota")
    product.apply(
        {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": "none", "namespace": "small-quota"},
            "spec": {"hard": {"pods": "0"}},
        }
    )
    manifest = product.make_job(make_manifest(name="no-room", namespace="small-quota"))
    runs.apply_run(product.client, manifest)
    status = runs.wait_until(product.client, "small-quota", ["no-room"], is_reached=_is_stalled, deadline_seconds=90.0)[
        "no-room"
    ]
    stalled = find_condition(status.conditions, ConditionType.STALLED)
    assert stalled is not None
    assert stalled.reason == "QuotaExceeded"
    assert "none" in stalled.message
    product.delete_namespace("small-quota")

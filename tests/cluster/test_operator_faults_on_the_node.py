"""The operator dies, the user suspends and deletes: runs end the same, with one Job per stage and attempt."""

import signal
from collections.abc import Callable
from typing import Any

import bad_inputs
import node_processes
import pytest
from manifests import make_manifest

from finetune_api import group
from finetune_api.kinds.finetunejob.status import ConditionType, FineTuneJobStatus, Phase
from finetune_api.kinds.status_conditions import is_true
from finetune_demo import runs
from finetune_devcluster import waiting

pytestmark = pytest.mark.cluster

NAMESPACE = "faults"
DEADLINE_SECONDS = 300.0


@pytest.fixture(scope="module", autouse=True)
def rows(product: Any) -> None:
    """A namespace and sixty rows to train on."""
    product.make_namespace(NAMESPACE)
    product.upload("datasets", {"faults/train.jsonl": bad_inputs.write_jsonl(bad_inputs.make_rows())})


def _apply(product: Any, name: str, epochs: str) -> None:
    manifest = make_manifest(
        name=name,
        namespace=NAMESPACE,
        spec__data=[
            {
                "name": "movies",
                "train": {"uri": "s3://datasets/faults/train.jsonl"},
                "columns": {"text": "sentence", "label": "label"},
            }
        ],
        spec__output__uri=f"s3://runs/{name}",
        spec__training={"epochs": epochs, "maxLength": 32, "learningRate": "1e-3"},
        # One run at a time: it may have a core.
        spec__resources={"gpus": 0, "cpu": "900m", "memory": "2Gi", "scratch": "2Gi"},
    )
    manifest["metadata"] |= {"labels": {"cost-center": "42"}, "annotations": {"example.com/team": "a", "b": "c"}}
    runs.apply_run(product.client, product.make_job(manifest))


def _wait(product: Any, name: str, is_reached: Callable[[FineTuneJobStatus], bool]) -> FineTuneJobStatus:
    return runs.wait_until(product.client, NAMESPACE, [name], is_reached=is_reached, deadline_seconds=DEADLINE_SECONDS)[
        name
    ]


def _kill_operator(product: Any) -> None:
    def require() -> list[int]:
        found = node_processes.find_operators(product.running.name)
        if not found:
            raise waiting.NotYetError("no operator process")
        return found

    node_processes.send(waiting.wait_for("an operator process", require, 120.0), signal.SIGKILL)


MOMENTS: dict[str, Callable[[FineTuneJobStatus], bool]] = {
    "just applied": lambda _: True,
    "prepare recorded": lambda status: bool(status.attempts),
    "validating": lambda status: (
        status.phase == Phase.VALIDATING or is_true(status.conditions, ConditionType.VALIDATED)
    ),
    "validated": lambda status: is_true(status.conditions, ConditionType.VALIDATED),
    "training": lambda status: status.phase == Phase.TRAINING,
}


@pytest.fixture(scope="module")
def killed(product: Any) -> FineTuneJobStatus:
    """The end of the run `killed`, whose operator was killed at every one of the moments."""
    _apply(product, "killed", epochs="10")
    for is_reached in MOMENTS.values():
        _wait(product, "killed", is_reached)
        _kill_operator(product)
    return _wait(product, "killed", runs.is_finished)


def test_a_run_ends_the_same_when_the_operator_is_killed_at_five_moments(
    killed: FineTuneJobStatus, product: Any
) -> None:
    assert killed.phase == Phase.SUCCEEDED, killed.failure
    assert [(attempt.stage, attempt.number) for attempt in killed.attempts] == [("prepare", 1), ("train", 1)]
    assert product.list_jobs(NAMESPACE, "killed") == sorted(attempt.job for attempt in killed.attempts)


def test_trainer_pods_meet_pod_security_restricted_and_carry_no_token(killed: FineTuneJobStatus, product: Any) -> None:
    pods = product.list_pods(NAMESPACE, "killed")
    assert [pod["metadata"]["labels"][group.LABEL_STAGE] for pod in pods] == ["prepare", "train"]
    for pod in pods:
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert pod["spec"]["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True
        environment = {item["name"]: item for item in pod["spec"]["containers"][0]["env"]}
        assert "value" not in environment["AWS_SECRET_ACCESS_KEY"]
        assert environment["NVIDIA_VISIBLE_DEVICES"]["value"] == "void"


def test_what_the_administrator_lists_of_a_job_s_metadata_reaches_its_pods(
    killed: FineTuneJobStatus, product: Any
) -> None:
    for pod in product.list_pods(NAMESPACE, "killed"):
        assert pod["metadata"]["labels"]["cost-center"] == "42"
        assert pod["metadata"]["annotations"]["example.com/team"] == "a"
        assert "b" not in pod["metadata"]["annotations"]


def test_a_suspended_run_has_no_pods_and_goes_on_with_the_next_attempt(product: Any) -> None:
    _apply(product, "paused", epochs="10")
    _wait(product, "paused", lambda status: status.phase == Phase.TRAINING)
    product.patch_job(NAMESPACE, "paused", {"spec": {"runPolicy": {"suspend": True}}})
    status = _wait(product, "paused", lambda status: is_true(status.conditions, ConditionType.SUSPENDED))
    assert status.phase == Phase.SUSPENDED
    assert product.list_pods(NAMESPACE, "paused", phase="Running") == []
    product.patch_job(NAMESPACE, "paused", {"spec": {"runPolicy": {"suspend": False}}})
    status = _wait(product, "paused", runs.is_finished)
    assert status.phase == Phase.SUCCEEDED, status.failure
    assert [(attempt.stage, attempt.number, attempt.counted) for attempt in status.attempts] == [
        ("prepare", 1, False),
        ("train", 1, False),
        ("train", 2, False),
    ]


def test_deleting_a_running_job_removes_its_jobs_and_pods_and_publishes_nothing(product: Any) -> None:
    _apply(product, "dropped", epochs="40")
    _wait(product, "dropped", lambda status: status.phase == Phase.TRAINING)
    product.delete_job(NAMESPACE, "dropped")
    product.wait_gone(NAMESPACE, "dropped")
    assert product.list_jobs(NAMESPACE, "dropped") == []
    assert product.list_pods(NAMESPACE, "dropped") == []
    assert [key for key in product.list_keys("runs", "dropped") if key.endswith("manifest.json")] == []

"""Running pods are asked by a real operator under its own rights: what they tell stands in the status soon after."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import documented_commands
import operator_driver
import pod_stand_in
import pytest
from manifests import Manifest
from operator_driver import Operator, PlayedPod, Run, Stage, get_conditions
from pod_stand_in import PodStandIn
from typer.testing import CliRunner

from finetune_api import run as contract
from finetune_cli import main
from finetune_devcluster import programs

pytestmark = pytest.mark.contract

ACCURACY = {"name": "accuracy", "value": "0.91", "split": "validation"}


@pytest.fixture(scope="module")
def operator_environment() -> dict[str, str]:
    """Pods are asked every second."""
    return {"FINETUNE_PROGRESS_SECONDS": "1", "FINETUNE_RESYNC_SECONDS": "5"}


@pytest.fixture
def pod() -> Iterator[PodStandIn]:
    """What answers at the address of a played pod, at the port of the contract."""
    with pod_stand_in.serving(pod_stand_in.choose_address(), contract.METRICS_PORT) as serving:
        yield serving


def _train(stage: Stage, name: str, pod: PodStandIn, **edits: Any) -> tuple[Run, PlayedPod]:
    run = stage.submit(name, **edits)
    run.play_prepare()
    return run, run.wait_pod("train").start(address=pod.address)


def _build_report(step: int, **fields: Any) -> Manifest:
    percent = step * 100 // 250
    return {"stage": "train", "phase": "train", "step": step, "totalSteps": 250, "percent": percent} | fields


def test_progress_checkpoints_and_evaluations_of_a_running_pod_are_shown(stage: Stage, pod: PodStandIn) -> None:
    run, played = _train(stage, "shown", pod)
    saved = run.build_checkpoint(100)
    evaluation = {"step": 100, "metrics": [ACCURACY], "isBest": True}
    pod.report = _build_report(120, trainLoss="0.41", checkpoints=[saved], lastEvaluation=evaluation)
    pod.report |= {"estimatedRemainingSeconds": 90}
    found = run.wait("its progress", lambda now: now.get("progress", {}).get("percent") == 48)
    assert (found["progress"]["pod"], found["progress"]["phase"], found["progress"]["step"]) == (
        played.name,
        "train",
        120,
    )
    assert found["progress"]["lastEvaluation"] == evaluation
    assert found["checkpoints"] == [saved | {"metrics": []}]
    assert get_conditions(found)["CheckpointSaved"] == ("True", "CheckpointSaved")
    run.wait_for_events("Evaluated")

    # A step more is no news: nothing is written, however often the pod is asked.
    version = run.read()["metadata"]["resourceVersion"]
    pod.report = _build_report(121, checkpoints=[saved], lastEvaluation=evaluation)
    asked = pod.count("GET")
    operator_driver.waiting.wait_for("five more questions", lambda: _check(pod.count("GET") >= asked + 5), 20)
    assert run.read()["metadata"]["resourceVersion"] == version

    # What lies outside of the run is not believed, nor anything that stands beside it.
    pod.report = _build_report(240, checkpoints=[saved | {"uri": "s3://elsewhere/step-000240/"}])
    asked = pod.count("GET")
    operator_driver.waiting.wait_for("three more questions", lambda: _check(pod.count("GET") >= asked + 3), 20)
    assert run.read()["metadata"]["resourceVersion"] == version

    played.succeed(
        {
            "manifestSHA256": "b" * 64,
            "artifactsURI": f"{run.read()['spec']['output']['uri']}/runs/{run.uid}/attempts/1/model/",
            "step": 250,
            "checkpoints": [],
        }
    )
    ended = run.wait_phase("Succeeded")
    assert (ended["progress"]["percent"], "checkpoints" in ended) == (100, False)
    assert {path for _, path, _ in pod.requests} == {"/progress"}


def _check(condition: bool) -> None:
    if not condition:
        raise operator_driver.waiting.NotYetError("not yet")


def test_an_interrupted_run_says_where_it_went_on_and_what_it_cost(
    stage: Stage, operator: Operator, pod: PodStandIn
) -> None:
    run, played = _train(stage, "interrupted", pod)
    pod.report = _build_report(120, checkpoints=[run.build_checkpoint(100)])
    run.wait("its progress", lambda now: now.get("progress", {}).get("percent") == 48)
    with pod_stand_in.serving(pod_stand_in.choose_address(), contract.METRICS_PORT) as second:
        second.report = _build_report(100, checkpoints=pod.report["checkpoints"], resumedFromStep=100)
        played.end(143, conditions=[{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}])
        run.wait_pod("train", other_than=[played.name]).start(address=second.address)
        found = run.wait("the resumption", lambda now: now.get("lostSteps") == 20)
    assert (found["preemptionCount"], found["attempts"][-1]["resumedFromStep"]) == (1, 100)
    run.wait_for_events("PodDisrupted", "Resumed")
    lost = f'finetune_job_lost_step_seconds_total{{namespace="{stage.namespace}"}}'
    assert operator.read_series()[lost] >= found.get("lostSeconds", 0)


def test_a_run_that_may_not_be_interrupted_fails_with_the_first_interruption(stage: Stage, pod: PodStandIn) -> None:
    run, played = _train(stage, "uninterrupted", pod, spec__runPolicy={"preemptionLimit": 0})
    run.wait_phase("Training")
    played.end(143)
    ended = run.wait_phase("Failed")
    assert ended["failure"]["reason"] == "PreemptionLimitExceeded"


@pytest.fixture
def kubectl(control_plane: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kubectl of the devcluster on the PATH, logged in as an administrator."""
    monkeypatch.setenv("PATH", str(programs.find_program("kubectl").parent), prepend=":")
    monkeypatch.setenv("KUBECONFIG", str(control_plane.kubeconfig))


def _save(run: Run, *arguments: str) -> tuple[int, str]:
    command = ["checkpoint", run.name, "--namespace", run.stage.namespace, *arguments]
    result = CliRunner().invoke(main.build_app(), command)
    return result.exit_code, result.output


def _blur(text: str, name: str) -> list[str]:
    """Leave out of what the program prints what differs from run to run."""
    return re.sub(r"\d+", "0", re.sub(r"s3://\S+", "URI", text.replace(name, "NAME"))).splitlines()


@pytest.mark.usefixtures("kubectl")
def test_a_checkpoint_is_saved_when_somebody_asks_for_it(stage: Stage, pod: PodStandIn) -> None:
    run, _ = _train(stage, "asked", pod)
    pod.report = _build_report(120, checkpoints=[run.build_checkpoint(100)])
    run.wait("its progress", lambda now: now.get("progress", {}).get("percent") == 48)
    pod.on_wish = lambda: pod.report.update(checkpoints=[run.build_checkpoint(123), run.build_checkpoint(100)])
    code, output = _save(run)
    assert code == 0, output
    assert output.splitlines()[0] == "asked trains (step 120); waiting for its checkpoint"
    assert output.splitlines()[1].startswith("step 123 saved at ")
    shown = documented_commands.find_blocks("docs/cli.md", "")[1].partition("\n")[2]
    assert _blur(shown, "movie-sentiment") == _blur(output, run.name)
    assert pod.count("POST") == 1
    value = run.read()["metadata"]["annotations"]["finetune.dev/checkpoint-now"]
    assert run.read_status()["checkpointRequest"] == value
    assert datetime.fromisoformat(value).tzinfo == UTC

    pod.on_wish = lambda: pod.report.update(checkpointFailure="the store refused it")
    code, output = _save(run)
    assert (code, "asked could not save a checkpoint: the store refused it" in output) == (1, True), output

    run.play_train()
    run.wait_phase("Succeeded")
    assert _save(run) == (1, "asked has finished (Succeeded): there is nothing to save\n")


@pytest.mark.usefixtures("kubectl")
def test_a_wish_that_nobody_can_be_told_ends_with_the_time(stage: Stage) -> None:
    run = stage.submit("queued")
    run.wait_pod("prepare")
    code, output = _save(run, "--timeout", "2")
    assert code == 1
    assert "its training saves a checkpoint as soon as it runs" in output
    assert "no checkpoint of queued after 2 s: no pod could be told yet" in output


@pytest.mark.usefixtures("kubectl")
def test_a_job_that_is_not_there_is_named(stage: Stage) -> None:
    code, output = _save(Run(stage, "absent", ""))
    assert code == 2
    assert 'finetunejobs.finetune.dev "absent" not found' in output

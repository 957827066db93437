"""The operator dies at any moment, or runs twice: one Job per stage and attempt, and the same end."""

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cluster_fixtures
import operator_driver
import pytest
from operator_driver import IMAGE, Operator, Run, Stage

from finetune_devcluster import api_client, waiting
from finetune_operator.jobs.kind import RESOURCE, FineTuneJobs
from finetune_operator.runtime import access
from finetune_operator.runtime.api_client import Client
from finetune_operator.runtime.controller import Controller
from finetune_operator.runtime.health import Health
from finetune_operator.runtime.metrics import Metrics
from finetune_operator.runtime.pod_poller import PodPoller
from finetune_operator.settings import Settings

pytestmark = pytest.mark.contract

SETTINGS = Settings(trainer_image=IMAGE)


@pytest.fixture
def quiet_stage(client: api_client.Client, control_plane: Any) -> Iterator[Stage]:
    """A fresh namespace that no operator watches yet."""
    with cluster_fixtures.fresh_namespace(control_plane.kubeconfig) as name:
        yield Stage(client, name)


def _make_operator(control_plane: Any, stage: Stage, directory: Path) -> Operator:
    return Operator(control_plane.kubeconfig, [stage.namespace], directory / "operator.log")


def _names(run: Run) -> list[str]:
    return ["-".join(job["metadata"]["name"].rsplit("-", 2)[1:]) for job in run.read_jobs()]


def test_killed_after_every_step_of_a_run_it_goes_on_where_it_was(
    control_plane: Any, quiet_stage: Stage, tmp_path: Path
) -> None:
    operator = _make_operator(control_plane, quiet_stage, tmp_path)

    def restart() -> None:
        operator.stop(signal.SIGKILL)
        operator.start()

    operator.start()
    run = quiet_stage.submit("walk")
    pod = run.wait_pod("prepare")
    restart()
    pod.start()
    run.wait("running", lambda now: now["attempts"][0].get("startTime") is not None)
    # What ends while nobody looks is found afterwards.
    operator.stop(signal.SIGKILL)
    run.play_prepare()
    operator.start()
    pod = run.wait_pod("train")
    restart()
    pod.start()
    run.wait_phase("Training")
    operator.stop(signal.SIGKILL)
    run.play_train()
    operator.start()
    final = run.wait_phase("Succeeded")
    restart()
    assert _names(run) == ["prepare-1", "train-1"]
    assert run.read_status() == final
    # What had ended before is not counted again.
    label = f'namespace="{quiet_stage.namespace}"'
    key = f'finetune_jobs_finished_total{{{label},reason="Completed",result="succeeded"}}'
    waiting.wait_for("the first pass", lambda: _require(key in operator.read_series()), 10)
    assert operator.read_series()[key] == 0
    assert operator.stop() == 0


def test_two_operators_at_once_make_one_job_per_attempt(control_plane: Any, quiet_stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    first = _make_operator(control_plane, quiet_stage, tmp_path)
    second = _make_operator(control_plane, quiet_stage, tmp_path / "second")
    first.start()
    second.start()
    runs = [quiet_stage.submit(f"twice-{number}") for number in range(3)]
    for run in runs:
        run.play_prepare()
    for run in runs:
        run.play_train()
    for run in runs:
        final = run.wait_phase("Succeeded")
        assert _names(run) == ["prepare-1", "train-1"]
        assert [item["counted"] for item in final["attempts"]] == [False, False]
    assert (first.stop(), second.stop()) == (0, 0)


class _Crash(Exception):  # noqa: N818 - the end of a process
    """The process ends here."""


class _MortalClient(Client):
    """A connection whose process dies before or after its n-th write; 0: never."""

    def __init__(self, kubeconfig: Path, crash_at: int, *, dies_after: bool) -> None:
        super().__init__(Metrics(), kubeconfig)
        self.writes = 0
        self._crash_at = crash_at
        self._dies_after = dies_after

    async def _send(self, method: str, *request: Any) -> tuple[int, bytes]:
        if method == "GET":
            return await super()._send(method, *request)
        self.writes += 1
        if self.writes == self._crash_at and not self._dies_after:
            raise _Crash
        answer = await super()._send(method, *request)
        if self.writes == self._crash_at:
            raise _Crash
        return answer


class _Sweep:
    """Reconciles one run in this process, with a crash at one write; 0: none."""

    def __init__(self, run: Run, crash_at: int, *, dies_after: bool) -> None:
        self._run = run
        self._crash_at = crash_at
        self._dies_after = dies_after
        self.has_crashed = False

    async def reconcile_all(self, kubeconfig: Path) -> None:
        """Reconcile until a pass writes nothing; a crash is followed by a new process, which knows nothing."""
        client = _MortalClient(kubeconfig, self._crash_at, dies_after=self._dies_after)
        metrics = Metrics()
        kind = FineTuneJobs(SETTINGS, metrics)
        controller = Controller(kind, client, metrics, Health(metrics, 30), PodPoller(kind, metrics, seconds=15))
        before = -1
        try:
            while client.writes != before:
                before = client.writes
                await controller.reconcile((self._run.stage.namespace, self._run.name))
        except _Crash:
            self.has_crashed, self._crash_at = True, 0
            await self.reconcile_all(kubeconfig)
        else:
            self._crash_at = max(0, self._crash_at - client.writes)
        finally:
            await client.close()


def _reconcile_all(kubeconfig: Path, sweeps: list[_Sweep]) -> None:
    async def reconcile() -> None:
        await asyncio.gather(*(sweep.reconcile_all(kubeconfig) for sweep in sweeps))

    asyncio.run(reconcile())


CRASH_POINTS = 14
"""A run without a fault makes 13 or 14 writes: one depends on whether the pod or its Job is seen first."""


@pytest.mark.parametrize("dies_after", [False, True], ids=["before", "after"])
def test_a_crash_at_any_write_changes_nothing_of_the_end(
    control_plane: Any, quiet_stage: Stage, dies_after: bool
) -> None:
    runs = [quiet_stage.submit(f"sweep-{number}") for number in range(CRASH_POINTS + 1)]
    sweeps = [_Sweep(run, number, dies_after=dies_after) for number, run in enumerate(runs)]
    _reconcile_all(control_plane.kubeconfig, sweeps)
    for run in runs:
        run.play_prepare()
    _wait_for_ends(runs, 1)
    _reconcile_all(control_plane.kubeconfig, sweeps)
    for run in runs:
        run.play_train()
    _wait_for_ends(runs, 2)
    _reconcile_all(control_plane.kubeconfig, sweeps)
    ends = [_summarize(run) for run in runs]
    crashes = [sweep.has_crashed for sweep in sweeps]
    assert crashes[:13] == [False] + [True] * 12, "every write but perhaps the last ones was a crash point once"
    assert ends == [ends[0]] * len(ends)
    assert ends[0]["jobs"] == ["prepare-1", "train-1"]
    assert ends[0]["phase"] == "Succeeded"


def _wait_for_ends(runs: list[Run], count: int) -> None:
    def probe() -> None:
        for run in runs:
            ended = [job for job in run.read_jobs() if job["status"].get("completionTime")]
            _require(len(ended) == count)

    waiting.wait_for(f"{count} complete Jobs each", probe, 30)


def _summarize(run: Run) -> dict[str, Any]:
    status = run.read_status()
    return {
        "phase": status["phase"],
        "jobs": _names(run),
        "attempts": [(item["stage"], item["number"], item["cause"], item["counted"]) for item in status["attempts"]],
        "ttl": [job["spec"].get("ttlSecondsAfterFinished") for job in run.read_jobs()],
        "conditions": operator_driver.get_conditions(status),
        "percent": status["progress"]["percent"],
    }


def _require(condition: bool) -> None:
    if not condition:
        raise waiting.NotYetError("not yet")


def test_without_a_rule_it_does_not_start_and_names_it(
    control_plane: Any, client: api_client.Client, quiet_stage: Stage, tmp_path: Path
) -> None:
    rules = [
        (group, resource, tuple(verb for verb in verbs if verb != "delete"))
        for group, resource, verbs in access.list_rules(RESOURCE)
    ]
    kubeconfig = operator_driver.build_account_kubeconfig(
        client, control_plane.kubeconfig, [quiet_stage.namespace], tmp_path, rules
    )
    operator = Operator(kubeconfig, [quiet_stage.namespace], tmp_path / "operator.log")
    operator.start(wait=False)
    assert operator.process is not None
    assert operator.process.wait(timeout=20) != 0
    assert f"must be allowed to delete jobs.batch in namespace {quiet_stage.namespace}" in operator.log.read_text()


def test_a_watched_namespace_that_is_gone_costs_the_others_nothing(
    control_plane: Any, client: api_client.Client, quiet_stage: Stage, tmp_path: Path
) -> None:
    kubeconfig = operator_driver.build_account_kubeconfig(
        client, control_plane.kubeconfig, [quiet_stage.namespace], tmp_path
    )
    operator = Operator(kubeconfig, ["gone-long-ago", quiet_stage.namespace], tmp_path / "operator.log")
    operator.start()
    try:
        run = quiet_stage.submit("beside")
        run.play_prepare()
        run.play_train()
        run.wait_phase("Succeeded")
    finally:
        assert operator.stop() == 0
    assert "watched namespace can't be used" in operator.log.read_text()


def test_without_the_api_server_it_ends_instead_of_idling(quiet_stage: Stage, tmp_path: Path) -> None:
    kubeconfig = tmp_path / "nowhere.kubeconfig"
    kubeconfig.write_text(
        "{apiVersion: v1, kind: Config, current-context: x, contexts: [{name: x, context: {cluster: x, user: x}}],"
        " clusters: [{name: x, cluster: {server: 'http://127.0.0.1:9'}}], users: [{name: x, user: {token: x}}]}"
    )
    operator = Operator(kubeconfig, [quiet_stage.namespace], tmp_path / "operator.log")
    operator.start(wait=False)
    assert operator.process is not None
    assert operator.process.wait(timeout=20) != 0


def test_an_environment_that_cannot_be_used_ends_with_78(control_plane: Any, tmp_path: Path) -> None:
    operator = Operator(control_plane.kubeconfig, [], tmp_path / "operator.log", {"FINETUNE_WORKERS": "many"})
    operator.start(wait=False)
    assert operator.process is not None
    assert operator.process.wait(timeout=20) == 78
    assert "FINETUNE_WORKERS (many) must be a whole number" in operator.log.read_text()

"""A run's life through every fault of an API server: the process goes on, and the run ends as if nothing had been."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from api_fault_proxy import ApiFaultProxy, Fault
from operator_driver import Operator, Run, Stage

from finetune_devcluster import waiting
from finetune_devcluster.api_client import Client

pytestmark = pytest.mark.contract

_numbers = itertools.count()


@pytest.fixture
def faulty_stage(
    client: Client, shared_namespaces: list[str], operator_behind_proxy: Operator, api_proxy: ApiFaultProxy
) -> Iterator[Stage]:
    """A namespace with an operator that meets the faults of `api_proxy`; none is left for the next test."""
    yield Stage(client, shared_namespaces[0])
    api_proxy.faults.clear()
    waiting.wait_for("a healthy operator", lambda: _require_healthy(operator_behind_proxy), 30)


def _require_healthy(operator: Operator) -> None:
    assert operator.process is not None
    assert operator.process.poll() is None, "the process never ends for what a server says"
    if operator.fetch("/healthz", operator.health_port)[0] != 200:
        raise waiting.NotYetError("unhealthy")


FAULTS: list[tuple[str, list[Fault]]] = [
    ("every request is slow", [Fault(times=40, delay_seconds=0.3)]),
    ("connections break off", [Fault(verb=verb, times=2, is_aborted=True) for verb in ("get", "list", "patch")]),
    ("creates break off before they arrive", [Fault(verb="create", times=2, is_aborted=True)]),
    ("answers to creates are lost", [Fault(verb="create", resource="jobs", times=2, is_lost=True)]),
    ("answers to patches are lost", [Fault(verb="patch", times=3, is_lost=True)]),
    ("too many requests", [Fault(times=6, status=429, headers={"Retry-After": "1"})]),
    ("the server fails", [Fault(verb=verb, times=3, status=500) for verb in ("get", "list", "create", "patch")]),
    ("the login is refused for a while", [Fault(times=12, status=401)]),
    ("a status can't be written", [Fault(verb="patch", resource="finetunejobs/status", times=3, status=503)]),
    ("a watch is too old", [Fault(verb="watch", times=6, watch_error=410)]),
    ("a watch ends with an error", [Fault(verb="watch", times=6, watch_error=500)]),
    ("a watch is refused", [Fault(verb="watch", times=3, status=400)]),
    ("watches say nothing", [Fault(verb="watch", times=-1, is_silent=True)]),
    ("events come twice", [Fault(verb="watch", times=-1, is_repeated=True)]),
]


@pytest.mark.parametrize(("sentence", "faults"), FAULTS, ids=[case[0] for case in FAULTS])
def test_a_run_lives_through(
    sentence: str,
    faults: list[Fault],
    faulty_stage: Stage,
    api_proxy: ApiFaultProxy,
    operator_behind_proxy: Operator,
) -> None:
    api_proxy.faults[:] = [replace(fault) for fault in faults]
    api_proxy.hits.clear()
    # Those open now would last for minutes before a fault of watches is met.
    api_proxy.drop_watches()
    run = faulty_stage.submit(f"fault-{next(_numbers)}")
    run.wait_pod("prepare", seconds=60)
    run.play_prepare()
    run.wait_pod("train", seconds=60)
    run.play_train()
    final = run.wait_phase("Succeeded", 60)
    assert _summarize(run, final) == {"jobs": ["prepare-1", "train-1"], "counted": [False, False], "failed": 0}
    # A watch may be in a pause when the test begins.
    waiting.wait_for("the fault", lambda: _require(bool(api_proxy.hits)), 60)
    _require_healthy(operator_behind_proxy)


def _summarize(run: Run, final: Any) -> dict[str, Any]:
    return {
        "jobs": ["-".join(job["metadata"]["name"].rsplit("-", 2)[1:]) for job in run.read_jobs()],
        "counted": [item["counted"] for item in final["attempts"]],
        "failed": final.get("failedAttempts", 0),
    }


def test_work_goes_on_while_no_watch_can_be_had(
    faulty_stage: Stage, api_proxy: ApiFaultProxy, operator_behind_proxy: Operator
) -> None:
    api_proxy.faults[:] = [Fault(verb="watch", times=-1, watch_error=500)]
    # Those open now would last for minutes before a fault of watches is met.
    api_proxy.drop_watches()
    waiting.wait_for(
        "an end of the watches",
        lambda: _require("watches ended, begun anew" in operator_behind_proxy.log.read_text()),
        30,
    )
    run = faulty_stage.submit(f"unwatched-{next(_numbers)}")
    run.wait_pod("prepare", seconds=60)
    run.play_prepare()
    run.wait_pod("train", seconds=60)
    run.play_train()
    run.wait_phase("Succeeded", 60)


def _require(condition: bool) -> None:
    if not condition:
        raise waiting.NotYetError("not yet")

"""The operator beside 10,000 finished and 100 active FineTuneJobs, on a real API server.

Memory, the time of a restart, the CPU and the API calls of an operator with nothing to do. Correctness first: nothing
is read before /metrics counts every FineTuneJob under its phase. Active ones have a Job whose pod waits for a node,
finished ones the whole status of a run that succeeded.
"""

import asyncio
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import operator_process
from operator_process import Manifest, OperatorProcess
from recording import Result, record

from finetune_api import crd, metrics
from finetune_api.kinds.finetunejob import status
from finetune_api.kinds.finetunejob.status import ConditionType, Phase
from finetune_devcluster import api_client, cluster, progress, waiting

NUM_FEW, NUM_HALF, NUM_DOUBLE, NUM_FINISHED = 500, 4_000, 8_000, 10_000
NUM_ACTIVE = 100
NAMESPACE = "bench"
RESTARTS = 3
IDLE_SECONDS = 130.0
"""Longer than the 120 s between two resyncs, so that exactly one or two fall into it."""
MAX_MEMORY_MIB, MAX_RESTART_SECONDS, MAX_IDLE_CPU_PERCENT = 300.0, 15.0, 2.0
MAX_CALLS_PER_MINUTE = 60.0
"""One a second (a choice): what a busy API server doesn't notice."""
MAX_GROWTH = 2.2
FEW_RATIO = 1.5
"""500 finished jobs may add half of the idle memory (a choice)."""
_DEADLINE_SECONDS = 180.0
_CALM_SECONDS = 10.0
"""What a start leaves behind is gone by then."""


@dataclass
class Figures:
    """What was measured; memory in MiB by the number of finished jobs."""

    memory: dict[int, float] = field(default_factory=dict)
    restarts: list[float] = field(default_factory=list)
    peak_memory: float = 0.0
    idle_cpu_percent: float = 0.0
    calls_per_minute: float = 0.0


def _build_finished_status(name: str) -> Manifest:
    moment, failures = "2026-01-01T00:00:00Z", {"Failed", "Stalled", "Reconciling", "Running", "Suspended"}
    conditions = [
        {
            "type": item.value,
            "status": "False" if item.value in failures else "True",
            "observedGeneration": 1,
            "reason": "Completed",
            "message": f"the tuned model lies in s3://runs/{name}/runs/0/attempts/1/model/",
            "lastTransitionTime": moment,
        }
        for item in ConditionType
    ]
    attempts = [
        {
            "number": 1,
            "stage": stage,
            "job": f"{name}-x1x1x-{stage}-1",
            "jobUID": "00000000-0000-4000-8000-000000000000",
            "startTime": moment,
            "endTime": moment,
            "activeSeconds": 300,
            "cause": "Completed",
            "counted": False,
        }
        for stage in ("prepare", "train")
    ]
    figures = [{"name": metric, "value": "0.5", "split": "test"} for metric in ("loss", "perplexity", "accuracy")]
    digest = "0" * 64
    return {
        "observedGeneration": 1,
        "phase": Phase.SUCCEEDED.value,
        "conditions": conditions,
        "attempts": attempts,
        "attemptCount": 1,
        "activeSeconds": 600,
        "runDigest": f"sha256:{digest}",
        "preparedAttempt": 1,
        "preparedSHA256": digest,
        "resolved": {key.value: "1" for key in status.ResolvedKey},
        "data": {"trainRows": 2000, "validationRows": 250, "testRows": 250, "trainTokens": 61234},
        "memory": {"predictedPeak": "2Gi", "measuredPeak": "2Gi"},
        "progress": {"stage": "train", "step": 250, "totalSteps": 250, "percent": 100, "updateTime": moment},
        "metrics": {"base": figures, "tuned": figures},
        "artifacts": {
            "uri": f"s3://runs/{name}/runs/0/attempts/1/model/",
            "manifestURI": f"s3://runs/{name}/runs/0/manifest.json",
            "manifestSHA256": digest,
        },
        "startTime": moment,
        "completionTime": moment,
    }


async def _add_finished(kubeconfig: Path, numbers: range) -> None:
    async with operator_process.connect(kubeconfig) as client:

        async def add(name: str) -> None:
            await client.create(operator_process.build_path(NAMESPACE), operator_process.build_job(NAMESPACE, name))
            path = operator_process.build_path(NAMESPACE, name, "status")
            await client.merge(path, {"status": _build_finished_status(name)})

        await operator_process.run_few(add(f"finished-{number}") for number in numbers)


async def _add_active(kubeconfig: Path) -> None:
    async with operator_process.connect(kubeconfig) as client:
        await operator_process.run_few(
            client.create(operator_process.build_path(NAMESPACE), operator_process.build_job(NAMESPACE, name))
            for name in (f"active-{number}" for number in range(NUM_ACTIVE))
        )


def _wait_settled(operator: OperatorProcess, num_finished: int, num_active: int) -> None:
    """Wait until the operator has counted all: each is counted once it was compared with its children."""

    def check() -> None:
        series = operator.read_series()
        prefix = f'{metrics.JOBS.name}{{namespace="{NAMESPACE}",phase='
        counts = {key.removeprefix(prefix): value for key, value in series.items() if key.startswith(prefix)}
        finished = counts.pop(f'"{Phase.SUCCEEDED.value}"}}', 0.0)
        seen = (finished, sum(counts.values()))
        if seen != (num_finished, num_active):
            raise waiting.NotYetError(f"{seen} of {(num_finished, num_active)}")

    waiting.wait_for("a settled operator", check, _DEADLINE_SECONDS)


def _measure_memory(kubeconfig: Path, log: Path, num_finished: int) -> float:
    with operator_process.running_operator(kubeconfig, log) as operator:
        _wait_settled(operator, num_finished, 0)
        time.sleep(_CALM_SECONDS)
        return operator.read_memory_mib()


def _count_calls(operator: OperatorProcess) -> float:
    prefix = f"{metrics.OPERATOR_API_REQUESTS_TOTAL.name}{{"
    return sum(value for key, value in operator.read_series().items() if key.startswith(prefix))


def _check_waiting_jobs(kubeconfig: Path) -> None:
    """Make sure that each active FineTuneJob has exactly one Job, whose pod waits."""

    async def check() -> None:
        async with operator_process.connect(kubeconfig) as client:
            jobs = await client.list_items(f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs")
            pods = await client.list_items(f"/api/v1/namespaces/{NAMESPACE}/pods")
        parents = {item["metadata"]["ownerReferences"][0]["name"] for item in jobs}
        phases = {item["status"]["phase"] for item in pods}
        if (len(jobs), len(parents), len(pods), phases) != (NUM_ACTIVE, NUM_ACTIVE, NUM_ACTIVE, {"Pending"}):
            raise waiting.NotYetError(f"{len(jobs)} Jobs of {len(parents)}, {len(pods)} pods, {phases}")

    waiting.wait_for("a pod of each active job", lambda: asyncio.run(check()), _DEADLINE_SECONDS)


def _measure(kubeconfig: Path, log: Path) -> Figures:
    figures, added = Figures(), 0
    for target in (0, NUM_FEW, NUM_HALF, NUM_DOUBLE, NUM_FINISHED):
        asyncio.run(_add_finished(kubeconfig, range(added, target)))
        added = target
        if target < NUM_FINISHED:
            figures.memory[target] = _measure_memory(kubeconfig, log, target)
    with operator_process.running_operator(kubeconfig, log):
        asyncio.run(_add_active(kubeconfig))
        _check_waiting_jobs(kubeconfig)
    for _ in range(RESTARTS):
        began = time.monotonic()
        with operator_process.running_operator(kubeconfig, log) as operator:
            _wait_settled(operator, NUM_FINISHED, NUM_ACTIVE)
            figures.restarts.append(time.monotonic() - began)
    with operator_process.running_operator(kubeconfig, log) as operator:
        _wait_settled(operator, NUM_FINISHED, NUM_ACTIVE)
        time.sleep(_CALM_SECONDS)
        _measure_idle(operator, figures)
        _check_waiting_jobs(kubeconfig)
    return figures


def _measure_idle(operator: OperatorProcess, figures: Figures) -> None:
    began, cpu, calls = time.monotonic(), operator.read_cpu_seconds(), _count_calls(operator)
    time.sleep(IDLE_SECONDS)
    figures.idle_cpu_percent = 100 * (operator.read_cpu_seconds() - cpu) / (time.monotonic() - began)
    figures.calls_per_minute = 60 * (_count_calls(operator) - calls) / (time.monotonic() - began)
    figures.peak_memory = operator.read_peak_mib()


def _build_results(figures: Figures) -> list[Result]:
    whole, memory = f"{NUM_FINISHED:,} finished and {NUM_ACTIVE} active jobs", figures.memory
    restart = statistics.median(figures.restarts)
    limits = [
        (
            f"resident at most, start included, with {whole}, against {MAX_MEMORY_MIB:g} MiB",
            figures.peak_memory,
            MAX_MEMORY_MIB,
            "MiB",
        ),
        (f"restart until all are counted, against {MAX_RESTART_SECONDS:g} s", restart, MAX_RESTART_SECONDS, "s"),
        (
            f"CPU while nothing happens, against {MAX_IDLE_CPU_PERCENT:g} % of a core",
            figures.idle_cpu_percent,
            MAX_IDLE_CPU_PERCENT,
            "%",
        ),
        (
            f"API calls while nothing happens, against {MAX_CALLS_PER_MINUTE:g} per minute",
            figures.calls_per_minute,
            MAX_CALLS_PER_MINUTE,
            "1/min",
        ),
    ]
    return [
        *(Result(name, ours, limit, unit, 1.0) for name, ours, limit, unit in limits),
        Result(
            f"resident with {NUM_DOUBLE:,} finished jobs, against {NUM_HALF:,}",
            memory[NUM_DOUBLE],
            memory[NUM_HALF],
            "MiB",
            MAX_GROWTH,
        ),
        Result(f"resident with {NUM_FEW} finished jobs, against none", memory[NUM_FEW], memory[0], "MiB", FEW_RATIO),
    ]


def main() -> None:
    """Measure and record."""
    running = cluster.start("bench-scale", "control-plane", steps=progress.Steps())
    try:
        api_client.apply_manifests(running.kubeconfig, [crd.build_crd()])
        api_client.create_namespace(running.kubeconfig, NAMESPACE)
        with tempfile.TemporaryDirectory() as folder:
            figures = _measure(running.kubeconfig, Path(folder) / "operator.log")
    finally:
        cluster.stop("bench-scale")
    record("operator_scale", _build_results(figures), ("kopf", "kubernetes"))


if __name__ == "__main__":
    main()

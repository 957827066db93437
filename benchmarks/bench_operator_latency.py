"""From an applied FineTuneJob to its Job, at 20 FineTuneJobs per second, on a real API server.

The clock is that of the client, a process of its own: it starts when the answer to the creation has come and stops
when a watch on Jobs delivers the child. The peer is that creation itself, sent to answered: one write of such an object
to the same server under the same load, so the ratio says how many writes' time the operator takes. Correctness first:
after each round every FineTuneJob has exactly one Job.
"""

import asyncio
import math
import statistics
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import operator_process
from operator_process import LoadClient
from recording import Result, record

from finetune_api import crd, group
from finetune_devcluster import api_client, cluster, progress, waiting

ROUNDS = 3
NUM_JOBS = 400
JOBS_PER_SECOND = 20.0
MAX_RATIO = 3.0
_DEADLINE_SECONDS = 60.0


@dataclass
class Times:
    """Moments of one round by the name of the FineTuneJob, in seconds of the client's clock."""

    sent: dict[str, float] = field(default_factory=dict)
    answered: dict[str, float] = field(default_factory=dict)
    seen: dict[str, float] = field(default_factory=dict)

    def list_writes(self) -> list[float]:
        """Return how long each creation took."""
        return [self.answered[name] - self.sent[name] for name in self.sent]

    def list_delays(self) -> list[float]:
        """Return how long after its creation each FineTuneJob had its Job; the watch may be faster than the answer."""
        return [max(0.0, self.seen[name] - self.answered[name]) for name in self.sent]


async def _watch_jobs(client: LoadClient, namespace: str, times: Times) -> None:
    async for event in client.watch(f"/apis/batch/v1/namespaces/{namespace}/jobs"):
        labels = event["object"]["metadata"].get("labels") or {}
        times.seen.setdefault(labels.get(group.LABEL_JOB, ""), time.monotonic())


async def _create_at(client: LoadClient, namespace: str, number: int, began: float, times: Times) -> None:
    name = f"run-{number}"
    await asyncio.sleep(began + number / JOBS_PER_SECOND - time.monotonic())
    times.sent[name] = time.monotonic()
    await client.create(operator_process.build_path(namespace), operator_process.build_job(namespace, name))
    times.answered[name] = time.monotonic()


async def _measure_round(kubeconfig: Path, namespace: str) -> Times:
    times = Times()
    async with operator_process.connect(kubeconfig) as client:
        watching = asyncio.create_task(_watch_jobs(client, namespace, times))
        began = time.monotonic() + 1.0
        await operator_process.run_all(
            _create_at(client, namespace, number, began, times) for number in range(NUM_JOBS)
        )
        deadline = time.monotonic() + _DEADLINE_SECONDS
        while len(times.seen) < NUM_JOBS:
            if watching.done() or time.monotonic() > deadline:
                raise RuntimeError(f"{len(times.seen)} of {NUM_JOBS} FineTuneJobs have a Job")
            await asyncio.sleep(0.1)
        watching.cancel()
        jobs = await client.list_items(f"/apis/batch/v1/namespaces/{namespace}/jobs")
        await _clear(client, namespace)
    counts = Counter(job["metadata"]["labels"][group.LABEL_JOB] for job in jobs)
    assert counts == dict.fromkeys(times.sent, 1), counts
    return times


async def _clear(client: LoadClient, namespace: str) -> None:
    """Delete what the round made, so that every round meets the same API server."""
    await client.delete_all(operator_process.build_path(namespace))
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while await client.list_items(f"/api/v1/namespaces/{namespace}/pods"):
        if time.monotonic() > deadline:
            raise RuntimeError(f"pods of namespace {namespace} are still there after {_DEADLINE_SECONDS:.0f} s")
        await asyncio.sleep(0.5)


def _compute_percentile(values: list[float], percent: float) -> float:
    """Return the smallest value that so many percent of the values don't exceed (nearest rank)."""
    return sorted(values)[math.ceil(len(values) * percent / 100) - 1]


def _build_result(rounds: list[Times], percent: float) -> Result:
    ours = statistics.median(_compute_percentile(times.list_delays(), percent) for times in rounds)
    peer = statistics.median(_compute_percentile(times.list_writes(), percent) for times in rounds)
    name = f"applied to Job, p{percent:g}, against p{percent:g} of one write"
    return Result(name, 1000 * ours, 1000 * peer, "ms", MAX_RATIO)


def main() -> None:
    """Measure and record."""
    running = cluster.start("bench-latency", "control-plane", steps=progress.Steps())
    try:
        api_client.apply_manifests(running.kubeconfig, [crd.build_crd()])
        namespaces = [f"round-{number}" for number in range(ROUNDS)]
        for namespace in namespaces:
            api_client.create_namespace(running.kubeconfig, namespace)
        with (
            tempfile.TemporaryDirectory() as folder,
            operator_process.running_operator(running.kubeconfig, Path(folder) / "operator.log") as operator,
        ):
            waiting.wait_for("a ready operator", operator.read_series, _DEADLINE_SECONDS)
            rounds = [asyncio.run(_measure_round(running.kubeconfig, namespace)) for namespace in namespaces]
    finally:
        cluster.stop("bench-latency")
    record("operator_latency", [_build_result(rounds, 99), _build_result(rounds, 50)], ("kopf", "kubernetes"))


if __name__ == "__main__":
    main()

"""Resident memory of the operator with 0 and with 500 finished FineTuneJobs, on a real API server.

Ours against ours: the ratio says what a finished job costs. Correctness first: /metrics must count the 500 jobs as
succeeded before memory is read.
"""

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from lightkube.generic_resource import create_namespaced_resource
from lightkube.types import PatchType
from recording import Result, record

from finetune_api import crd, group, metrics
from finetune_api.status import Phase
from finetune_devcluster import api_client, cluster, progress, waiting

NUM_JOBS = 500
NAMESPACE = "bench"
GOAL_RATIO = 1.5
"""500 finished jobs may add half of the idle memory (a choice)."""
_START_DEADLINE_SECONDS = 120.0

_FineTuneJob = create_namespaced_resource(group.GROUP, group.VERSION, group.KIND, group.PLURAL)


def _build_job(number: int) -> dict[str, object]:
    return {
        "apiVersion": group.API_VERSION,
        "kind": group.KIND,
        "metadata": {"name": f"finished-{number}", "namespace": NAMESPACE},
        "spec": {
            "task": "CausalLM",
            "model": {"uri": "s3://models/base/"},
            "data": [{"name": "text", "train": {"uri": "s3://datasets/text.txt"}}],
            "output": {"uri": f"s3://runs/finished-{number}"},
        },
    }


def _build_status() -> dict[str, object]:
    moment = "2026-01-01T00:00:00Z"
    true = dict.fromkeys(("Ready", "Validated", "ArtifactsUploaded", "Succeeded", "Finished"), "True")
    states = true | {"Reconciling": "False", "Stalled": "False", "Failed": "False"}
    conditions = [
        {"type": name, "status": state, "reason": "Succeeded", "message": "done", "lastTransitionTime": moment}
        for name, state in states.items()
    ]
    return {"status": {"observedGeneration": 1, "phase": Phase.SUCCEEDED, "conditions": conditions}}


def _fill(kubeconfig: Path) -> None:
    with api_client.connect(kubeconfig) as client:
        for number in range(NUM_JOBS):
            client.create(_FineTuneJob.from_dict(_build_job(number)), namespace=NAMESPACE)
            client.patch(
                _FineTuneJob.Status,
                f"finished-{number}",
                _build_status(),
                namespace=NAMESPACE,
                patch_type=PatchType.MERGE,
            )


def _fetch(url: str) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=5) as answer:
            text: str = answer.read().decode()
            return text
    except OSError as error:
        raise waiting.NotYetError(str(error)) from error


def _choose_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _measure(kubeconfig: Path, expected: int, log: Path) -> float:
    """Run an operator until it has counted the finished jobs, and return its resident memory in MiB."""
    health, served = _choose_port(), _choose_port()
    environment = os.environ | {
        "KUBECONFIG": str(kubeconfig),
        "FINETUNE_TRAINER_IMAGE": "registry.example/trainer:1",
        "FINETUNE_HEALTH_PORT": str(health),
        "FINETUNE_METRICS_PORT": str(served),
    }
    want = f'{metrics.JOBS.name}{{namespace="{NAMESPACE}",phase="Succeeded"}} {expected:.1f}'

    def check_counted() -> None:
        _fetch(f"http://127.0.0.1:{served}/readyz")
        text = _fetch(f"http://127.0.0.1:{served}/metrics")
        if expected and want not in text:
            found = [line for line in text.splitlines() if line.startswith(f"{metrics.JOBS.name}{{")]
            raise waiting.NotYetError(str(found))

    with (
        log.open("w") as output,
        subprocess.Popen(
            [sys.executable, "-m", "finetune_operator"], env=environment, stdout=output, stderr=output
        ) as process,
    ):
        try:
            waiting.wait_for("the operator", check_counted, _START_DEADLINE_SECONDS)
            time.sleep(10)  # what the start left behind is gone by then
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            return next(float(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))
        finally:
            process.terminate()


def main() -> None:
    """Measure and record."""
    running = cluster.start("bench", "control-plane", steps=progress.Steps())
    try:
        api_client.apply_manifests(
            running.kubeconfig,
            [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}, crd.build_crd()],
        )
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder) / "operator.log"
            empty = _measure(running.kubeconfig, 0, log)
            _fill(running.kubeconfig)
            filled = _measure(running.kubeconfig, NUM_JOBS, log)
    finally:
        cluster.stop("bench")
    record(
        "operator_memory",
        [Result(f"resident with {NUM_JOBS} finished jobs, against none", filled, empty, "MiB", GOAL_RATIO)],
        ("kopf", "lightkube"),
    )


if __name__ == "__main__":
    main()

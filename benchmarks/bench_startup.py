"""Seconds from the start of the trainer to its first optimizer step, against a bare transformers.Trainer script.

Both train MiniLM with LoRA on the same 2,000 sentences. Ours begins at the launcher, checks the RunConfig and pulls
base model and prepared rows from a real S3 server; the peer reads the same files from disk and does none of that.
Also: seconds from the start to the end with exit code 78 for a RunConfig that can't work. Correctness first: each run
must end with 0.
"""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from recording import Result, record

from finetune_api import exits, run
from finetune_demo import buckets, datasets
from finetune_devcluster import s3

ROUNDS = 3
EXAMPLE = "movie-sentiment"


def _seconds_until(command: list[str], mark: str, environment: dict[str, str]) -> float:
    """Start a program, read its output until a line holds `mark`, and let it end.

    Raises:
        RuntimeError: it ended without that line or with an error.
    """
    began = time.perf_counter()
    seen: float | None = None
    lines: list[str] = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if seen is None and mark in line:
                seen = time.perf_counter() - began
    if seen is None or process.returncode != 0:
        raise RuntimeError(f"{command} ended with {process.returncode} and said: {''.join(lines[-20:])}")
    return seen


def _build_config(server: s3.S3Server, stage: run.Stage, prepared: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "version": 1,
        "job": {"namespace": "bench", "name": "startup", "uid": "startup", "attempt": 1},
        "stage": stage,
        "prepared": prepared,
        "spec": {
            "task": "SequenceClassification",
            "model": {"uri": "s3://models/minilm/"},
            "data": [{"name": "movies", "train": {"uri": "s3://datasets/movies/train.jsonl"}}],
            "method": {"kind": "LoRA", "lora": {"rank": 16}},
            "training": {"maxSteps": 2, "maxLength": 64},
            "evaluation": {"every": "End", "compareWithBase": False},
            "output": {"uri": "s3://runs/startup"},
            "storage": {"endpointURL": server.endpoint_url, "addressingStyle": "path"},
            "resources": {"gpus": 0},
        },
    }


def _upload(server: s3.S3Server, files: dict[str, Path]) -> None:
    with contextlib.closing(buckets.connect(server)) as client:
        buckets.make_buckets(client)
        buckets.upload_files(client, files)


def _start(folder: Path, config: dict[str, Any], number: str) -> tuple[list[str], dict[str, str]]:
    work = folder / number
    work.mkdir()
    (work / "run.json").write_text(json.dumps(config))
    environment = {
        run.RUN_CONFIG_VARIABLE: str(work / "run.json"),
        run.SCRATCH_VARIABLE: str(work / "scratch"),
        run.TERMINATION_LOG_VARIABLE: str(work / "termination.json"),
        run.METRICS_PORT_VARIABLE: "0",
    }
    return [sys.executable, "-m", "finetune_trainer"], environment


def _measure(folder: Path, server: s3.S3Server, files: dict[str, Path]) -> list[Result]:
    _upload(server, files)
    shared = os.environ | {
        "AWS_ACCESS_KEY_ID": server.access_key,
        "AWS_SECRET_ACCESS_KEY": server.secret_key,
        "HF_HUB_OFFLINE": "1",
    }
    command, environment = _start(folder, _build_config(server, run.Stage.PREPARE, None), "prepare")
    subprocess.run(command, env=shared | environment, check=True, capture_output=True)
    message = json.loads((folder / "prepare" / "termination.json").read_text())
    prepared = {"attempt": 1, "sha256": message["preparedSHA256"]}
    peer_command = [
        sys.executable,
        str(Path(__file__).parent / "bare_trainer.py"),
        str((folder / "models" / "minilm").resolve()),
        str(files["datasets/movies/train.jsonl"]),
    ]
    ours, peers, refusals = [], [], []
    for number in range(ROUNDS):
        config = _build_config(server, run.Stage.TRAIN, prepared)
        command, environment = _start(folder, config, f"train-{number}")
        _forget_runs(server)
        ours.append(_seconds_until(command, "step=1 of=", shared | environment))
        peers.append(_seconds_until(peer_command, "first step done", dict(shared)))
        refusals.append(_measure_refusal(folder, config, f"bad-{number}", dict(shared)))
    return [
        Result("start to first optimizer step", statistics.median(ours), statistics.median(peers), "s", 1.05),
        Result("start to exit 78 for a bad spec, against 1 s", statistics.median(refusals), 1.0, "s", 1.0),
    ]


def _forget_runs(server: s3.S3Server) -> None:
    """Remove the manifest of the last round: a published run isn't trained again."""
    with contextlib.closing(buckets.connect(server)) as client:
        client.delete_object(Bucket="runs", Key="startup/runs/startup/manifest.json")


def _measure_refusal(folder: Path, config: dict[str, Any], name: str, shared: dict[str, str]) -> float:
    broken = json.loads(json.dumps(config))
    broken["spec"]["method"]["lora"]["rank"] = 0
    command, environment = _start(folder, broken, name)
    began = time.perf_counter()
    ended = subprocess.run(command, env=shared | environment, check=False, capture_output=True)
    assert ended.returncode == exits.ExitCode.CONFIG, ended
    return time.perf_counter() - began


def main() -> None:
    """Measure and record."""
    with tempfile.TemporaryDirectory() as name, s3.start_s3(Path(name) / "s3") as server:
        folder = Path(name)
        files = datasets.build_example_data(EXAMPLE, folder) | datasets.build_example_models(EXAMPLE, folder)
        results = _measure(folder, server, files)
    record("startup", results, ("torch", "transformers", "peft"))


if __name__ == "__main__":
    main()

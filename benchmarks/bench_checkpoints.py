"""What it costs to save a training's state, to go on from it, and to find the place in the data again.

The state is that of AdamW on 500 MB: weights and two moments, in float32, saved by `Saver` to SeaweedFS, a real S3
server in a process of its own. A step beside an upload is one of a small model on one thread, so that one core is left
for upload and server. Start-up is that of the whole train stage of MiniLM with all weights trained, from the start of
the container's process to the end of its next step, input files in a folder; the first argument is the number of
starts.
Correctness first: what comes back is what was saved, and each interrupted run ends with 143.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import json
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import torch
from recording import Result, record

from finetune_api import exits, run
from finetune_api.artifacts import S3Address, build_run_layout
from finetune_api.kinds.storage import AddressingStyle, Storage
from finetune_demo import datasets
from finetune_devcluster import s3
from finetune_trainer.batches.sampler import StepOrder
from finetune_trainer.checkpoints import schedule, snapshot, state
from finetune_trainer.checkpoints.archive import Archive, Identity
from finetune_trainer.checkpoints.saver import SavePolicy, Saver
from finetune_trainer.checkpoints.snapshot import Buffers, Snapshot
from finetune_trainer.checkpoints.state import Position, TrainingState
from finetune_trainer.storage import open_store

STATE_BYTES = 500_000_000
ROUNDS = 5
ROWS = 1_000_000
ADAPTER_PARAMETERS = 1_300_000
"""Of LoRA of rank 16 on all linear layers of MiniLM."""
EXAMPLE = "movie-sentiment"
IDENTITY = Identity("bench", f"sha256:{'0' * 64}", "0" * 64)


class Model(torch.nn.Module):
    """Three matrices of one size, and a loss that goes through them."""

    def __init__(self, num_parameters: int) -> None:
        super().__init__()
        width = int((num_parameters / 3) ** 0.5)
        self.layers = torch.nn.ModuleList(torch.nn.Linear(width, width, bias=False) for _ in range(3))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            rows = layer(rows)
        return rows.square().mean()


class Training:
    """A model that has made a step, with what its state is saved to."""

    def __init__(self, num_parameters: int, archive: Archive, folder: Path) -> None:
        self.model = Model(num_parameters)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), fused=True)
        self.folder, self.archive, self.buffers = folder, archive, Buffers()
        self.saver = Saver(archive, SavePolicy(1, "bench", 100, "loss", 1e9, keep=1))
        self.step = 0
        self.make_step()

    def make_step(self) -> None:
        self.optimizer.zero_grad()
        width = self.model.layers[0].in_features
        self.model(torch.ones(8, width)).backward()
        self.optimizer.step()

    def copy(self) -> Snapshot:
        """Do what a training waits for."""
        self.step += 1
        return Snapshot(
            state=TrainingState(position=Position(step=self.step)),
            weights=self.buffers.copy("weights", snapshot.find_weights(self.model)),
            optimizer=self.buffers.copy("optimizer", snapshot.find_moments(self.model, self.optimizer)),
            save_table=lambda path: path.write_text("step\n"),
        )

    def prepare_folder(self) -> Path:
        folder = self.folder / state.name_folder(self.step)
        snapshot.write_random_state({"torch": torch.get_rng_state()}, folder, 0)
        return folder

    def save(self) -> None:
        found = self.copy()
        assert self.saver.save_now(found, self.prepare_folder())


def clock(function: Callable[[], object]) -> float:
    """Return the seconds a call takes."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def measure_copy(training: Training) -> Result:
    """The pause of a checkpoint against a plain copy of the same tensors to memory that is there."""
    weights, moments = snapshot.find_weights(training.model), snapshot.find_moments(training.model, training.optimizer)
    tensors = [*weights.values(), *moments.values()]
    copies = [torch.empty_like(tensor) for tensor in tensors]
    training.copy()

    def copy_plainly() -> None:
        for copy, tensor in zip(copies, tensors, strict=True):
            copy.copy_(tensor)

    copy_plainly()
    ours, peers = [], []
    for _ in range(ROUNDS * 3):
        ours.append(clock(training.copy))
        peers.append(clock(copy_plainly))
    return Result(
        "pause of a checkpoint, against a plain copy of the state in memory",
        statistics.median(ours) * 1e3,
        statistics.median(peers) * 1e3,
        "ms",
        1.2,
    )


def measure_cost(training: Training, what: str) -> Result:
    """Processor time of a checkpoint beyond the copy, against the time until the next one."""
    spent = []
    num_trained = sum(parameter.numel() for parameter in training.model.parameters())
    for _ in range(ROUNDS):
        found = training.copy()
        folder = training.prepare_folder()
        began = time.process_time()
        assert training.saver.save_now(found, folder)
        spent.append(time.process_time() - began)
    every = schedule.choose_seconds(schedule.predict_bytes(num_trained), "cpu")
    return Result(
        f"processor time of a checkpoint of {what} every {every:.0f} s, against 1 % of that time",
        statistics.median(spent),
        every / 100,
        "CPU-s",
        1.0,
    )


def measure_step(large: Training, small: Training) -> Result:
    """A step of a training beside an upload of another's state, against one without."""
    alone, beside = [], []
    for _ in range(ROUNDS):
        alone += [clock(small.make_step) for _ in range(20)]
        found = large.copy()
        large.saver.save(found, large.prepare_folder())
        while not large.saver.is_free:
            beside.append(clock(small.make_step))
    return Result(
        f"a step beside an upload of 500 MB, against one without ({len(beside)} steps)",
        statistics.median(beside) * 1e3,
        statistics.median(alone) * 1e3,
        "ms",
        1.05,
    )


def measure_restore(training: Training, archive: Archive, store: Any, layout: Any, folder: Path) -> Result:
    """A checkpoint found, fetched, proven and put back, against pulling its files."""
    training.save()
    want = {name: tensor.clone() for name, tensor in snapshot.find_weights(training.model).items()}
    ours, peers = [], []
    for _ in range(ROUNDS):
        with torch.no_grad():
            for parameter in training.model.parameters():
                parameter.zero_()
        ours.append(clock(lambda: _restore(training, archive, folder / "restored")))
        shutil.rmtree(folder / "pulled", ignore_errors=True)
        peers.append(clock(lambda: store.fetch_folder(S3Address("runs", f"{layout.run.key}/"), folder / "pulled")))
        assert all(torch.equal(tensor, want[name]) for name, tensor in snapshot.find_weights(training.model).items())
    return Result(
        "500 MB of state restored, against pulling the same files",
        statistics.median(ours),
        statistics.median(peers),
        "s",
        1.2,
    )


def _restore(training: Training, archive: Archive, folder: Path) -> None:
    restored, damages = archive.fetch_newest(folder)
    assert restored is not None
    assert damages == []
    snapshot.restore_weights(training.model, restored.folder / state.WEIGHTS)
    training.optimizer.state.clear()
    snapshot.restore_moments(training.model, training.optimizer, restored.folder)


def measure_place() -> Result:
    """The first rows of the next step, late in a data set and early in it."""
    lengths = [16 + number % 200 for number in range(ROWS)]
    seconds = {}
    for percent in (1, 99):
        order = StepOrder(lengths, 32, 13, rank=0, num_ranks=1, is_packed=True, first_step=ROWS // 32 * percent // 100)
        seconds[percent] = clock(lambda order=order: next(rows for rows in order if rows))  # type: ignore[misc]
    return Result(
        "the place in a million rows, found at 99 % rather than at 1 %: more seconds, against 1 s",
        abs(seconds[99] - seconds[1]),
        1.0,
        "s",
        1.0,
    )


def measure_states(folder: Path, server: s3.S3Server) -> list[Result]:
    """Measure everything that needs no training of a real model."""
    os.environ |= {"AWS_ACCESS_KEY_ID": server.access_key, "AWS_SECRET_ACCESS_KEY": server.secret_key}
    storage = Storage(endpoint_url=server.endpoint_url, addressing_style=AddressingStyle.PATH)
    store, layout = open_store(storage), build_run_layout("s3://runs/bench", "bench")
    _make_bucket(server)
    archive = Archive(store, layout, IDENTITY)
    large = Training(STATE_BYTES // 12, archive, folder / "large")
    adapter = Training(ADAPTER_PARAMETERS, Archive(store, build_run_layout("s3://runs/a", "a"), IDENTITY), folder / "a")
    torch.set_num_threads(1)
    return [
        measure_copy(large),
        measure_cost(large, "500 MB"),
        measure_cost(adapter, "an adapter"),
        measure_step(large, Training(3_000_000, archive, folder / "small")),
        measure_restore(large, archive, store, layout, folder),
        measure_place(),
    ]


def _make_bucket(server: s3.S3Server) -> None:
    boto3.client(
        "s3",
        endpoint_url=server.endpoint_url,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        region_name="us-east-1",
    ).create_bucket(Bucket="runs")


class Stage:
    """The trainer's stages over a store that is a folder, each in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.store = folder, folder / "store"
        files = datasets.build_example_data(EXAMPLE, folder) | datasets.build_example_models(EXAMPLE, folder)
        for address, path in files.items():
            target = self.store / address
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
        (self.store / "runs").mkdir(exist_ok=True)
        self.number = 0

    def start(self, stage: run.Stage, prepared: dict[str, Any] | None) -> "subprocess.Popen[str]":
        """Start a stage; its log is its output."""
        self.number += 1
        work = self.folder / f"work-{self.number}"
        work.mkdir()
        config = {
            "job": {"namespace": "bench", "name": "checkpoints", "uid": "checkpoints", "attempt": self.number},
            "stage": stage,
            "prepared": prepared,
            "spec": {
                "task": "SequenceClassification",
                "model": {"uri": "s3://models/minilm/"},
                "data": [{"name": "movies", "train": {"uri": "s3://datasets/movies/train.jsonl"}}],
                "method": {"kind": "Full"},
                "training": {"maxSteps": 40, "maxLength": 64},
                "evaluation": {"every": "End", "compareWithBase": False},
                "output": {"uri": "s3://runs/checkpoints"},
                "resources": {"gpus": 0},
            },
        }
        (work / "run.json").write_text(json.dumps(config))
        environment = os.environ | {
            run.RUN_CONFIG_VARIABLE: str(work / "run.json"),
            run.SCRATCH_VARIABLE: str(work / "scratch"),
            run.TERMINATION_LOG_VARIABLE: str(work / "termination.json"),
            run.METRICS_PORT_VARIABLE: "0",
            run.STORE_FOLDER_VARIABLE: str(self.store),
            "HF_HUB_OFFLINE": "1",
        }
        return subprocess.Popen(
            [sys.executable, "-m", "finetune_trainer"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )

    def measure_start(self, prepared: dict[str, Any], mark: str) -> tuple[float, int]:
        """Return seconds from a start to a line of the log, and the peak of memory in bytes; then end it by SIGTERM."""
        began = time.perf_counter()
        with self.start(run.Stage.TRAIN, prepared) as process:
            assert process.stdout is not None
            lines = []
            for line in process.stdout:
                lines.append(line)
                if mark in line:
                    break
            else:
                raise RuntimeError("".join(lines[-20:]))
            seconds = time.perf_counter() - began
            # Of the rank, the launcher's only child.
            rank = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])
            peak = next(
                int(line.split()[1]) * 1024
                for line in Path(f"/proc/{rank}/status").read_text().splitlines()
                if line.startswith("VmHWM")
            )
            process.send_signal(signal.SIGTERM)
            process.stdout.read()
        assert process.returncode == exits.ExitCode.INTERRUPTED, process.returncode
        return seconds, peak

    def forget(self, kept: Path | None) -> None:
        """Put the run's attempts back to what they were: those of a copy, or none."""
        attempts = self.store / "runs" / "checkpoints" / "runs" / "checkpoints" / "attempts"
        shutil.rmtree(attempts, ignore_errors=True)
        if kept is not None:
            shutil.copytree(kept, attempts)


def measure_starts(folder: Path, num_starts: int) -> list[Result]:
    """Start-up and memory of a run that goes on, against one that begins."""
    stage = Stage(folder)
    with stage.start(run.Stage.PREPARE, None) as process:
        assert process.stdout is not None
        output = process.stdout.read()
    assert process.returncode == 0, output
    message = json.loads((folder / "work-1" / "termination.json").read_text())
    prepared = {"attempt": 1, "sha256": message["preparedSHA256"]}
    stage.measure_start(prepared, "step=1 of=")
    kept = folder / "kept"
    shutil.copytree(stage.store / "runs" / "checkpoints" / "runs" / "checkpoints" / "attempts", kept)
    fresh, resumed = [], []
    for _ in range(num_starts):
        stage.forget(None)
        fresh.append(stage.measure_start(prepared, "step=1 of="))
        stage.forget(kept)
        resumed.append(stage.measure_start(prepared, "step="))
    return [
        Result(
            f"start to the next new step of a run that goes on, against a fresh start's first (p50 of {num_starts})",
            statistics.median(seconds for seconds, _ in resumed),
            statistics.median(seconds for seconds, _ in fresh),
            "s",
            1.2,
        ),
        Result(
            "peak memory of a run that goes on, against a fresh one's",
            statistics.median(peak for _, peak in resumed) / 2**20,
            statistics.median(peak for _, peak in fresh) / 2**20,
            "MiB",
            1.05,
        ),
    ]


def main() -> None:
    """Measure and record."""
    num_starts = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    with tempfile.TemporaryDirectory() as name, s3.start_s3(Path(name) / "s3") as server:
        results = measure_states(Path(name), server)
    with tempfile.TemporaryDirectory() as name:
        results += measure_starts(Path(name), num_starts)
    record("checkpoints", results, ("torch", "transformers", "safetensors", "obstore"))


if __name__ == "__main__":
    main()

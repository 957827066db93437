"""A run that goes on with other ranks or other micro-batches sees the same rows in the same steps."""

import csv
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import interruptions
import one_rank
import pytest
import training_runs
from training_runs import RunBench, method

from finetune_api.run import RunConfig

STEPS = 9


@pytest.fixture(scope="module")
def bench(s3_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunBench]:
    with training_runs.open_bench(s3_server, tmp_path_factory.mktemp("models")) as bench:
        yield bench


def prepare(bench: RunBench, micro_batch_tokens: int = 64) -> RunConfig:
    """Prepare a run of a model without dropout, whose numbers depend on its rows alone."""
    resolved = {"totalSteps": str(STEPS), "microBatchTokens": str(micro_batch_tokens)}
    return bench.prepare("CausalLM", "decoder", spec={"method": method("Full")}, resolved=resolved)


def run_ranks(config: RunConfig, folder: Path, attempt: int, num_ranks: int, stop_after: int | None) -> list[str]:
    """Run an attempt with so many ranks; the last of them is told to stop. Return how each ended."""
    work = folder / str(attempt)
    work.mkdir()
    job = config.job.model_copy(update={"attempt": attempt})
    run_file = work / "run.json"
    run_file.write_text(config.model_copy(update={"job": job}).model_dump_json(by_alias=True, exclude_none=True))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    processes = []
    for rank in range(num_ranks):
        place = {"RANK": str(rank)}
        if num_ranks > 1:
            place |= {"LOCAL_RANK": str(rank), "WORLD_SIZE": str(num_ranks), "LOCAL_WORLD_SIZE": str(num_ranks)}
            place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        told = [str(stop_after)] if stop_after is not None and rank == num_ranks - 1 else []
        command = [sys.executable, one_rank.__file__, str(run_file), str(work / "scratch"), *told]
        processes.append(
            subprocess.Popen(command, env=os.environ | place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
    ended = [process.communicate(timeout=240) for process in processes]
    assert [process.returncode for process in processes] == [0] * num_ranks, ended
    return [output.splitlines()[-1] for output, _ in ended]


def read_losses(bench: RunBench, config: RunConfig, folder: Path, attempt: int) -> list[float]:
    with (bench.fetch_attempt(config, folder, attempt) / "metrics.csv").open() as file:
        return [float(row["train_loss"]) for row in csv.DictReader(file)]


def test_two_ranks_then_one_then_two_give_the_losses_of_one(bench: RunBench, tmp_path: Path) -> None:
    undisturbed, config = prepare(bench), prepare(bench)
    interruptions.carry_on(undisturbed, tmp_path / "undisturbed", [])

    first = run_ranks(config, tmp_path, 1, num_ranks=2, stop_after=3)
    second = run_ranks(config, tmp_path, 2, num_ranks=1, stop_after=6)
    third = run_ranks(config, tmp_path, 3, num_ranks=2, stop_after=None)

    # The rank that was told and the one that was not stop at the same step.
    assert first[0] == "SIGTERM interrupted training at step 4; the checkpoint of step 3 stands"
    assert first[1].startswith("SIGTERM interrupted training at step 4")
    assert second == ["SIGTERM interrupted training at step 7; the checkpoint of step 6 stands"]
    assert third == ["Completed", "Completed"]
    want = read_losses(bench, undisturbed, tmp_path / "want", 1)
    assert len(want) == STEPS
    assert read_losses(bench, config, tmp_path / "got", 3) == pytest.approx(want, abs=1e-5)


def test_other_micro_batches_give_the_same_losses(bench: RunBench, tmp_path: Path) -> None:
    undisturbed, other = prepare(bench), prepare(bench, micro_batch_tokens=24)

    interruptions.carry_on(undisturbed, tmp_path / "undisturbed", [])
    interruptions.carry_on(other, tmp_path / "other", [])

    want = read_losses(bench, undisturbed, tmp_path / "want", 1)
    assert read_losses(bench, other, tmp_path / "got", 1) == pytest.approx(want, abs=1e-5)

"""What a real training tells while it runs: phases in order, steps, evaluations, a checkpoint when it is asked for."""

import contextlib
import http.client
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import training_runs
from training_runs import RunBench, Running, method

from finetune_api import artifacts, live
from finetune_api.live import LiveProgress
from finetune_api.metrics import TrainerPhase
from finetune_api.run import RunConfig
from finetune_cli.local import figures

POD_UID = "6f1c1a52-0000-4000-8000-000000000001"
STEPS = 40
"""A second of a tiny model."""
PAUSE_SECONDS = 0.05
"""Between two questions: who asks without end takes the training's time."""
ORDER = [phase.value for phase in TrainerPhase]


@pytest.fixture(scope="module")
def bench(s3_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunBench]:
    with training_runs.open_bench(s3_server, tmp_path_factory.mktemp("models")) as bench:
        yield bench


def _ask(port: int, request: str, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with contextlib.closing(connection):
        connection.request(request, path, headers={live.POD_HEADER: POD_UID})
        answer = connection.getresponse()
        return answer.status, answer.read()


def _watch(running: Running, port: int, look: Callable[[LiveProgress], None]) -> list[bytes]:
    """Ask as long as the training runs; return the answers, each once."""
    answers: list[bytes] = []
    while running.process.poll() is None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.process.wait(PAUSE_SECONDS)
        # Before the server is there, and after it is gone.
        with contextlib.suppress(OSError, http.client.HTTPException):
            code, body = _ask(port, "GET", live.PROGRESS_PATH)
            assert code == 200
            if body not in answers:
                answers.append(body)
                look(LiveProgress.model_validate_json(body))
    return answers


def test_a_training_tells_where_it_stands_and_saves_when_it_is_asked_to(bench: RunBench, tmp_path: Path) -> None:
    config: RunConfig = bench.prepare(
        "SequenceClassification",
        "encoder",
        spec={"method": method("LoRA"), "evaluation": {"every": "Steps", "everySteps": 20}},
        resolved={"totalSteps": str(STEPS)},
    )
    port = figures.find_free_port()
    pod = {"FINETUNE_METRICS_PORT": str(port), "FINETUNE_POD_UID": POD_UID}
    running = bench.start(config, tmp_path, pod)
    wishes: list[int] = []

    def look(progress: LiveProgress) -> None:
        if not wishes and progress.phase == TrainerPhase.TRAIN and (progress.step or 0) >= 3:
            wishes.append(_ask(port, "POST", live.CHECKPOINT_PATH)[0])

    answers = _watch(running, port, look)
    ended = running.wait()
    assert ended.exit_code == 0, ended.log
    assert wishes == [202]

    told = [LiveProgress.model_validate_json(body) for body in answers]
    assert max(map(len, answers)) < live.MAX_PROGRESS_BYTES
    assert {item.stage for item in told} == {"train"}
    phases = [item.phase for item in told if item.phase is not None]
    assert set(phases) <= set(ORDER)
    assert {"load", "evaluate", "train"} <= set(phases)
    steps = [item.step for item in told if item.step is not None]
    assert steps == sorted(steps)
    training = [item for item in told if item.phase == "train" and item.step]
    assert {(item.total_steps, item.resumed_from_step) for item in training} == {(STEPS, 0)}
    last = training[-1]
    assert last.train_loss is not None
    assert last.tokens_per_second
    assert last.estimated_remaining_seconds is not None
    assert last.last_evaluation is not None
    assert last.last_evaluation.metrics[0].name == "accuracy"

    layout = artifacts.build_run_layout(config.spec.output.uri, config.job.uid)
    saved = [item.checkpoints for item in told if item.checkpoints]
    assert saved, "the wish came true while it trained"
    assert all(layout.is_inside(item.uri) for item in saved[-1])
    assert ended.message.checkpoints == [], "they are deleted after the success"
    assert json.loads(answers[-1])["totalSteps"] == STEPS

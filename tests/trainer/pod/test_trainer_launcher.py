"""PID 1: what it refuses, whom it starts, whose end it reports. Real processes throughout."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from finetune_api.run import RunConfig, TerminationMessage

RUN = {
    "job": {"namespace": "demo", "name": "tiny", "uid": "1-2", "attempt": 3},
    "stage": "train",
    "prepared": {"attempt": 1, "sha256": "0" * 64},
    "spec": {
        "task": "CausalLM",
        "model": {"uri": "s3://models/tiny"},
        "data": [{"name": "rows", "train": {"uri": "s3://data/rows.jsonl"}}],
        "output": {"uri": "s3://models/out"},
        "resources": {"gpus": 0},
    },
}
# A launcher whose ranks are the program in the variable RANK_PROGRAM.
LAUNCHER = "import os, sys; from finetune_trainer.pod import launcher; "
START = LAUNCHER + "sys.exit(launcher.main([sys.executable, '-c', os.environ['RANK_PROGRAM']]))"
PRELUDE = """
import os, pathlib, signal, sys, time
from finetune_api.run import TerminationMessage
from finetune_trainer.pod import rank_result as results
rank = int(os.environ["RANK"])
def leave(code, reason, text="", **more):
    message = TerminationMessage(stage="train", attempt=3, exit_code=code, reason=reason, message=text, **more)
    results.save_result(message, pathlib.Path(os.environ["FINETUNE_RANK_RESULT"]))
    sys.exit(code)
"""


class Pod:
    """The launcher in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run_file = folder / "run.json"
        self.termination = folder / "termination"

    def write(self, run: Any) -> None:
        self.run_file.write_text(run if isinstance(run, str) else json.dumps(run))

    def start(self, program: str = "", **environment: str) -> "subprocess.Popen[str]":
        pod = {
            "FINETUNE_RUN_CONFIG": str(self.run_file),
            "FINETUNE_TERMINATION_LOG": str(self.termination),
            "FINETUNE_SCRATCH": str(self.folder / "scratch"),
            "RANK_PROGRAM": PRELUDE + textwrap.dedent(program),
        }
        return subprocess.Popen(
            [sys.executable, "-c", START],
            env=os.environ | pod | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self, process: "subprocess.Popen[str]") -> tuple[int, TerminationMessage, str]:
        out, log = process.communicate(timeout=60)
        return process.returncode, TerminationMessage.model_validate_json(self.termination.read_bytes()), log + out

    def run(self, program: str = "", **environment: str) -> tuple[int, TerminationMessage, str]:
        return self.end(self.start(program, **environment))


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    pod = Pod(tmp_path)
    pod.write(RUN)
    return pod


def with_spec(**fields: Any) -> dict[str, Any]:
    return RUN | {"spec": RUN["spec"] | fields}  # type: ignore[operator] # a dict, as written above


BAD_RUNS = {
    "a misspelt field is named with its neighbour": (
        with_spec(training={"epoch": "2"}),
        "InvalidSpec",
        "spec.training.epoch is not a known field; did you mean epochs?",
    ),
    "all wrong fields are reported at once": (
        with_spec(training={"batchSize": 0, "learningRate": 0.1}),
        "InvalidSpec",
        "spec.training.batchSize (0) must be at least 1; spec.training.learningRate (0.1) must be a decimal string; "
        'write it in quotes: "0.1"',
    ),
    "a rule across fields is checked too": (
        with_spec(method={"kind": "Full", "quantization": "NF4"}),
        "InvalidSpec",
        "spec.method.quantization (NF4) must be None unless method.kind is LoRA: only a frozen base can be quantized",
    ),
    "a train stage needs prepared output": (
        {key: value for key, value in RUN.items() if key != "prepared"},
        "ConfigError",
        "prepared is missing; it must be given for stage train",
    ),
}


@pytest.mark.parametrize(("run", "want_reason", "want_message"), BAD_RUNS.values(), ids=BAD_RUNS.keys())
def test_a_bad_run_config_ends_with_78(pod: Pod, run: Any, want_reason: str, want_message: str) -> None:
    pod.write(run)

    code, message, _ = pod.run()

    assert message == TerminationMessage(
        stage="train",
        attempt=3,
        exit_code=78,
        reason=want_reason,
        message=want_message,
        remedy="correct the fields named and create the job anew",
    )
    assert code == 78


@pytest.mark.parametrize(
    ("content", "want"),
    [
        pytest.param(None, "must be readable: No such file or directory", id="a missing file"),
        pytest.param("{", "must be JSON: ", id="a file that is no JSON"),
        pytest.param("[" + " " * 200_000 + "]", "must have at most 131072 bytes", id="a file that is too long"),
    ],
)
def test_a_run_config_that_cannot_be_read_ends_with_78(pod: Pod, content: str | None, want: str) -> None:
    pod.run_file.unlink()
    if content is not None:
        pod.write(content)

    code, message, _ = pod.run()

    assert (code, message.exit_code, message.reason) == (78, 78, "ConfigError")
    assert want in message.message


def test_the_launcher_imports_nothing_slow(pod: Pod) -> None:
    pod.write(BAD_RUNS["a misspelt field is named with its neighbour"][0])
    program = LAUNCHER + "launcher.main(); print(sorted({'torch', 'transformers', 'peft', 'boto3'} & set(sys.modules)))"
    environment = {"FINETUNE_RUN_CONFIG": str(pod.run_file), "FINETUNE_TERMINATION_LOG": str(pod.termination)}

    found = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | environment, capture_output=True, text=True, check=True
    )

    assert found.stdout == "[]\n"


def test_an_unknown_argument_ends_with_64() -> None:
    found = subprocess.run(
        [sys.executable, "-m", "finetune_trainer", "--stage", "train"], capture_output=True, text=True, check=False
    )

    assert found.returncode == 64
    assert "arguments (--stage train) must be empty" in found.stderr


def test_a_rank_that_succeeds_has_the_last_word(pod: Pod) -> None:
    code, message, _ = pod.run("leave(0, 'Completed', step=7, manifest_sha256='a' * 64)")

    assert code == 0
    assert message == TerminationMessage(
        stage="train", attempt=3, exit_code=0, reason="Completed", step=7, manifest_sha256="a" * 64
    )


ENDS = {
    "a classified failure keeps its code, reason and words": (
        "leave(80, 'Diverged', 'the loss is nan')",
        (80, "Diverged", "the loss is nan"),
    ),
    "an exit without a result is the trainer's own fault": (
        "sys.exit(3)",
        (3, "Internal", "rank 0 of stage train ended with code 3 and left no result"),
    ),
    "a silent success is no success": ("sys.exit(0)", (1, "Internal", "rank 0 ended without a result")),
    "a segmentation fault": (
        "os.kill(os.getpid(), signal.SIGSEGV)",
        (139, "Internal", "rank 0 of stage train died of SIGSEGV"),
    ),
    "an abort": (
        "os.kill(os.getpid(), signal.SIGABRT)",
        (134, "Internal", "rank 0 of stage train died of SIGABRT"),
    ),
    "a kill by the kernel names the memory": (
        "os.kill(os.getpid(), signal.SIGKILL)",
        (
            137,
            "OutOfMemory",
            "the kernel killed rank 0 of stage train, as it does when the pod's memory (spec.resources.memory: 16Gi) "
            "is exhausted",
        ),
    ),
}


@pytest.mark.parametrize(("program", "want"), ENDS.values(), ids=ENDS.keys())
def test_the_end_of_a_rank_becomes_the_end_of_the_pod(pod: Pod, program: str, want: tuple[int, str, str]) -> None:
    code, message, _ = pod.run(program)

    assert (message.exit_code, message.reason, message.message) == want
    assert code == want[0]


def test_the_first_rank_that_fails_decides_and_the_others_are_stopped(pod: Pod) -> None:
    pod.write(with_spec(resources={"gpus": 3}))
    program = """
    if rank == 1:
        leave(85, "Internal", "the GPU is lost")
    signal.signal(signal.SIGTERM, lambda *_: leave(1, "Internal", "an echo"))
    signal.pause()
    """

    code, message, _ = pod.run(program)

    assert (code, message.exit_code, message.message) == (85, 85, "the GPU is lost")


def die_after(result: str) -> str:
    return f"""
    try:
        {result}
    except SystemExit:
        os.kill(os.getpid(), signal.SIGSEGV)
    """


COMMITS = {
    "of a manifest": ("leave(0, 'Completed', manifest_sha256='a' * 64)", (0, "Completed", "")),
    "of prepared rows": ("leave(0, 'Completed', prepared_sha256='a' * 64)", (0, "Completed", "")),
    "of nothing": ("leave(0, 'Completed')", (139, "Internal", "rank 0 of stage train died of SIGSEGV")),
    "of a failure": ("leave(80, 'Diverged')", (139, "Internal", "rank 0 of stage train died of SIGSEGV")),
}


@pytest.mark.parametrize(("result", "want"), COMMITS.values(), ids=COMMITS.keys())
def test_a_crash_after_the_commit_is_a_line_in_the_log(pod: Pod, result: str, want: tuple[int, str, str]) -> None:
    code, message, log = pod.run(die_after(result))

    assert (message.exit_code, message.reason, message.message) == want
    assert code == want[0]
    assert ("rank 0 ended with code 139 after the stage had committed" in log) is (code == 0)


def test_every_rank_knows_its_place(pod: Pod) -> None:
    pod.write(with_spec(resources={"gpus": 2}))
    program = """
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR")
    place = " ".join(os.environ[name] for name in names)
    folder = pathlib.Path(os.environ["FINETUNE_SCRATCH"])
    (folder / f"place-{rank}").write_text(f"{place} {os.environ['MASTER_PORT'].isdigit()}")
    leave(0, "Completed")
    """

    code, _, _ = pod.run(program)

    places = [(pod.folder / "scratch" / f"place-{rank}").read_text() for rank in (0, 1)]
    assert (code, places) == (0, ["0 0 2 2 127.0.0.1 True", "1 1 2 2 127.0.0.1 True"])


def test_one_rank_alone_gets_no_rendezvous(pod: Pod) -> None:
    code, message, _ = pod.run("leave(0, 'Completed', str('WORLD_SIZE' in os.environ))")

    assert (code, message.message) == (0, "False")


READY = "(pathlib.Path(os.environ['FINETUNE_SCRATCH']) / 'ready').touch()\n"


def wait_until_ready(pod: Pod, process: "subprocess.Popen[str]") -> None:
    while not (pod.folder / "scratch" / "ready").exists():
        with contextlib.suppress(subprocess.TimeoutExpired):
            raise AssertionError(f"ended with {process.wait(0.1)}: {process.communicate()}")


STOPS = {
    "a rank that stops in time is believed": (
        "signal.signal(signal.SIGTERM, lambda *_: leave(143, 'PodDisrupted', 'stopped at step 5', step=5))\n"
        + READY
        + "while True: signal.pause()",
        (143, "PodDisrupted", "stopped at step 5"),
    ),
    "a rank without a handler dies and is explained": (
        READY + "while True: signal.pause()",
        (143, "PodDisrupted", "a signal stopped the pod before the stage was finished"),
    ),
    "a rank that ignores the signal is killed when the grace ends": (
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + READY + "while True: signal.pause()",
        (143, "PodDisrupted", "a signal stopped the pod before the stage was finished"),
    ),
    "a commit that was under way still counts": (
        "signal.signal(signal.SIGTERM, lambda *_: leave(0, 'Completed', 'committed'))\n" + READY + "signal.pause()",
        (0, "Completed", "committed"),
    ),
}


@pytest.mark.parametrize(("program", "want"), STOPS.values(), ids=STOPS.keys())
def test_a_signal_stops_the_ranks(pod: Pod, program: str, want: tuple[int, str, str]) -> None:
    # 10 s of the grace belong to the launcher; only a rank that ignores the signal is to feel the end of the rest.
    process = pod.start(program, FINETUNE_GRACE_SECONDS="10.2" if "SIG_IGN" in program else "70")
    wait_until_ready(pod, process)
    process.send_signal(signal.SIGTERM)

    code, message, _ = pod.end(process)

    assert (message.exit_code, message.reason, message.message) == want
    assert code == want[0]


def test_a_terminal_interrupt_counts_as_a_signal_too(pod: Pod) -> None:
    program, want = STOPS["a rank that stops in time is believed"]
    process = pod.start(program)
    wait_until_ready(pod, process)
    process.send_signal(signal.SIGINT)

    code, message, _ = pod.end(process)

    assert (code, message.reason, message.message) == want


def test_a_termination_log_that_cannot_be_written_leaves_its_words_in_the_log(pod: Pod) -> None:
    process = pod.start("leave(80, 'Diverged', 'the loss is nan')", FINETUNE_TERMINATION_LOG=str(pod.folder / "a/b"))
    _, log = process.communicate(timeout=60)

    assert process.returncode == 80
    assert "the loss is nan" in log


def test_the_environment_of_this_table_is_a_valid_run() -> None:
    assert RunConfig.model_validate(RUN).job.attempt == 3

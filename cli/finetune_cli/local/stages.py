"""The trainer started twice, as the operator would start its pods: a RunConfig in, a termination message out."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from finetune_api import run
from finetune_api.exits import ExitCode
from finetune_api.kinds.finetunejob.spec import FineTuneJobSpec
from finetune_api.kinds.finetunejob.status import Reason
from finetune_api.run import JobIdentity, PreparedReference, RunConfig, Stage, TerminationMessage
from finetune_cli.local import figures
from finetune_cli.local.figures import Figures

_PAUSE_SECONDS = 0.25
"""Between two readings of the trainer's figures (a choice): a bar that moves four times a second looks alive."""

Watch = Callable[[Stage, Figures], None]


@dataclass(frozen=True, slots=True)
class LocalRun:
    """One run on this machine.

    Attributes:
        folder: holds a folder per bucket, for inputs and outputs.
        scratch: an empty folder for what is left when it is over.
        log: file the trainer's log lines are added to.
    """

    namespace: str
    name: str
    uid: str
    spec: FineTuneJobSpec
    folder: Path
    scratch: Path
    log: Path


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended: the message of its last stage and the seconds of each stage that ran."""

    message: TerminationMessage
    prepared: TerminationMessage
    seconds: Mapping[Stage, float]

    @property
    def is_success(self) -> bool:
        return self.message.stage is Stage.TRAIN and self.message.exit_code == ExitCode.OK


def run_stages(local: LocalRun, watch: Watch) -> Ended:
    """Run prepare, and train where prepare succeeded.

    Raises:
        KeyboardInterrupt: as it came; the trainer has been stopped.
    """
    began = time.monotonic()
    prepared = _run_stage(local, Stage.PREPARE, None, watch)
    seconds = {Stage.PREPARE: time.monotonic() - began}
    if prepared.exit_code != ExitCode.OK or prepared.prepared_sha256 is None:
        return Ended(prepared, prepared, seconds)
    began = time.monotonic()
    reference = PreparedReference(attempt=prepared.attempt, sha256=prepared.prepared_sha256)
    trained = _run_stage(local, Stage.TRAIN, reference, watch)
    return Ended(trained, prepared, seconds | {Stage.TRAIN: time.monotonic() - began})


def _run_stage(local: LocalRun, stage: Stage, prepared: PreparedReference | None, watch: Watch) -> TerminationMessage:
    identity = JobIdentity(namespace=local.namespace, name=local.name, uid=local.uid, attempt=1)
    config = RunConfig(job=identity, stage=stage, spec=local.spec, prepared=prepared)
    folder = local.scratch / stage
    folder.mkdir()
    files = {name: folder / name for name in ("run.json", "message.json")}
    files["run.json"].write_text(config.model_dump_json(exclude_none=True), encoding="utf-8")
    (folder / "scratch").mkdir()
    port = figures.find_free_port()
    variables = {
        run.RUN_CONFIG_VARIABLE: str(files["run.json"]),
        run.TERMINATION_LOG_VARIABLE: str(files["message.json"]),
        run.SCRATCH_VARIABLE: str(folder / "scratch"),
        run.STORE_FOLDER_VARIABLE: str(local.folder),
        run.METRICS_PORT_VARIABLE: str(port),
        "HF_HUB_OFFLINE": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    users = {item.name: item.value for item in local.spec.trainer.env}
    with local.log.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "finetune_trainer"],
            env=os.environ | users | variables,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            # A key pressed at the terminal is told to this process alone, which stops the trainer as a cluster would.
            start_new_session=True,
        )
        code = _wait(process, lambda: watch(stage, figures.read_figures(port) or Figures()))
    return _read_message(files["message.json"], stage, code)


def _wait(process: subprocess.Popen[bytes], look: Callable[[], None]) -> int:
    try:
        while process.poll() is None:
            look()
            try:
                process.wait(_PAUSE_SECONDS)
            except subprocess.TimeoutExpired:
                continue
    except BaseException:
        process.send_signal(signal.SIGTERM)
        process.wait()
        raise
    return process.returncode


def _read_message(path: Path, stage: Stage, code: int) -> TerminationMessage:
    """Return what the stage left; one that died without a message is told by its exit code."""
    try:
        return TerminationMessage.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        # Popen gives the number of a signal as a negative code; shells and containers as 128 + N.
        code = 128 - code if code < 0 else code or ExitCode.UNCLASSIFIED
        return TerminationMessage(
            stage=stage,
            attempt=1,
            exit_code=code,
            reason=Reason.OUT_OF_MEMORY if code == ExitCode.KILLED else Reason.INTERNAL,
            message=f"the trainer ended with code {code} and left no message",
            remedy="close other programs or use a smaller model" if code == ExitCode.KILLED else "look at the log",
        )

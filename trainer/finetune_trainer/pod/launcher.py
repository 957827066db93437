"""PID 1 of the trainer pod: checks the RunConfig, starts one process per rank, and has the last word about the end.

It blocks its signals instead of handling them and waits for them in one place, so nothing races: a blocked signal is
kept for PID 1 too, which the kernel otherwise spares all signals without a handler. The first rank that fails decides;
the others are echoes. Nobody else writes the termination message. Imports neither torch nor what needs it: a bad spec
is reported at once, and a rank that crashes takes nothing with it.
"""

import dataclasses
import json
import logging
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from finetune_api import run, validation
from finetune_api.exits import ExitCode
from finetune_api.kinds.finetunejob.status import Reason
from finetune_api.run import RunConfig, Stage, TerminationMessage
from finetune_trainer import rank_environment
from finetune_trainer.pod import rank_result
from finetune_trainer.telemetry import logs

logger = logging.getLogger(__name__)

KILL_MARGIN_SECONDS = 10
"""Left of the pod's grace period when the ranks are killed: time to write the message (a choice)."""
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
_MAX_MESSAGE = 1024


@dataclasses.dataclass
class RankExit:
    """How one rank ended: its exit code, 128 + N after signal N, and whether the launcher killed it."""

    rank: int
    code: int
    is_killed_by_launcher: bool


@dataclasses.dataclass
class RunOutcome:
    """How the ranks ended, in the order they did, and whether the pod was asked to stop before."""

    exits: list[RankExit]
    is_interrupted: bool


class InvalidRunConfig(Exception):  # noqa: N818 - reads as what it says
    """The RunConfig can't be used; holds the message that says so."""

    def __init__(self, message: TerminationMessage) -> None:
        super().__init__(message.message)
        self.message = message


def main(command: Sequence[str] | None = None) -> int:
    """Run the stage the RunConfig names and return the exit code of the container.

    Args:
        command: what to start as a rank. Default: this program with `--rank`.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        config = load_run_config(Path(os.environ.get(run.RUN_CONFIG_VARIABLE, run.RUN_CONFIG_PATH)))
    except InvalidRunConfig as error:
        return _finish(error.message)
    logs.set_up_logs(config.job, config.stage)
    try:
        message = _run_stage(config, command or [sys.executable, "-m", "finetune_trainer", "--rank"])
    except Exception as error:
        logger.exception("the launcher failed")
        message = build_internal_message(config, error)
    return _finish(message)


def load_run_config(path: Path) -> RunConfig:
    """Read and check the RunConfig, with every error at once.

    Raises:
        InvalidRunConfig: the file is missing or too long, or not every field and rule holds.
    """
    try:
        with path.open("rb") as file:
            text = file.read(run.MAX_RUN_CONFIG_BYTES + 1)
    except OSError as error:
        raise _refuse({}, f"run config ({path}) must be readable: {error.strerror}", Reason.CONFIG_ERROR) from error
    if len(text) > run.MAX_RUN_CONFIG_BYTES:
        limit = f"run config ({path}) must have at most {run.MAX_RUN_CONFIG_BYTES} bytes"
        raise _refuse({}, limit, Reason.CONFIG_ERROR)
    try:
        data = json.loads(text)
        config = RunConfig.model_validate(data)
    except ValidationError as error:
        found = "; ".join(str(item).removeprefix(".") for item in validation.parse_errors(error, "", RunConfig))
        raise _refuse(data, found, Reason.INVALID_SPEC) from error
    except ValueError as error:
        raise _refuse({}, f"run config ({path}) must be JSON: {error}", Reason.CONFIG_ERROR) from error
    errors = validation.validate_spec(config.spec)
    if errors:
        raise _refuse(data, "; ".join(str(item) for item in errors), Reason.INVALID_SPEC)
    if config.stage == Stage.TRAIN and config.prepared is None:
        raise _refuse(data, "prepared is missing; it must be given for stage train", Reason.CONFIG_ERROR)
    return config


def _refuse(data: object, text: str, reason: Reason) -> InvalidRunConfig:
    """Build the refusal; stage and attempt are taken from what can be read, so that the message fits its attempt."""
    raw: Mapping[str, object] = data if isinstance(data, dict) else {}
    job = raw.get("job")
    attempt = job.get("attempt") if isinstance(job, dict) else None
    return InvalidRunConfig(
        TerminationMessage(
            stage=Stage(str(raw["stage"])) if raw.get("stage") in list(Stage) else Stage.PREPARE,
            attempt=attempt if isinstance(attempt, int) and attempt > 0 else 1,
            exit_code=ExitCode.CONFIG,
            reason=reason,
            message=text,
            remedy="correct the fields named and create the job anew",
        )
    )


def _run_stage(config: RunConfig, command: Sequence[str]) -> TerminationMessage:
    scratch = Path(os.environ.get(run.SCRATCH_VARIABLE, run.SCRATCH_DIRECTORY))
    folder = scratch / "ranks"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    world_size = max(1, config.spec.resources.gpus) if config.stage == Stage.TRAIN else 1
    grace = float(os.environ.get(run.GRACE_VARIABLE, run.TERMINATION_GRACE_SECONDS))
    pids = [_start_rank(command, rank, world_size, folder) for rank in range(world_size)]
    outcome = wait_for_ranks(pids, max(0.0, grace - KILL_MARGIN_SECONDS))
    found = {rank: rank_result.load_result(_result_path(folder, rank)) for rank in range(world_size)}
    message = decide_end(config, outcome, found)
    if message.exit_code == 0:
        for item in outcome.exits:
            if item.code != 0:
                logger.warning("rank %d ended with code %d after the stage had committed", item.rank, item.code)
    return message


def _result_path(folder: Path, rank: int) -> Path:
    return folder / f"{rank}.json"


def _start_rank(command: Sequence[str], rank: int, world_size: int, folder: Path) -> int:
    """Start a rank in a session of its own, so that a terminal's Ctrl-C reaches it through the launcher only."""
    environment = {
        **os.environ,
        rank_result.RESULT_VARIABLE: str(_result_path(folder, rank)),
        rank_environment.RANK: str(rank),
    }
    if world_size > 1:
        # One rank alone must not see these: libraries would set up a process group for it.
        environment |= {
            rank_environment.LOCAL_RANK: str(rank),
            rank_environment.WORLD_SIZE: str(world_size),
            "LOCAL_WORLD_SIZE": str(world_size),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": os.environ.setdefault("MASTER_PORT", str(_find_free_port())),
        }
    return os.posix_spawn(command[0], list(command), environment, setsid=True, setsigmask=[])


def _find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_ranks(pids: Sequence[int], grace_seconds: float) -> RunOutcome:
    """Wait until every rank has ended, passing signals on and ending the rest after the first failure.

    Args:
        pids: process ids by rank; SIGTERM, SIGINT and SIGCHLD are blocked in this process.
        grace_seconds: what ranks get between SIGTERM and SIGKILL.
    """
    alive = dict(zip(pids, range(len(pids)), strict=True))
    outcome = RunOutcome([], False)
    kill_at: float | None = None
    is_killed = False
    while alive:
        left = 3600.0 if kill_at is None else max(0.0, kill_at - time.monotonic())
        received = signal.sigtimedwait(_SIGNALS, left)
        if received is None and kill_at is not None and not is_killed:
            logger.warning("ranks did not end within %.0f s; killing them", grace_seconds)
            _send(alive, signal.SIGKILL)
            is_killed, kill_at = True, None
        elif received is not None and received.si_signo != signal.SIGCHLD:
            logger.info("%s received; stopping the ranks", signal.Signals(received.si_signo).name)
            outcome.is_interrupted = True
            _send(alive, signal.SIGTERM)
            kill_at = kill_at or time.monotonic() + grace_seconds
        for pid, status in _reap():
            if pid not in alive:
                continue
            rank, code = alive.pop(pid), os.waitstatus_to_exitcode(status)
            outcome.exits.append(
                RankExit(rank, 128 - code if code < 0 else code, is_killed and code == -signal.SIGKILL)
            )
            if code != 0 and kill_at is None and not is_killed and alive:
                _send(alive, signal.SIGTERM)
                kill_at = time.monotonic() + grace_seconds
    return outcome


def _reap() -> list[tuple[int, int]]:
    """Collect every child that has ended; PID 1 also inherits orphans of the ranks."""
    ended: list[tuple[int, int]] = []
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended.append((pid, status))


def _send(alive: Mapping[int, int], number: signal.Signals) -> None:
    for pid in alive:
        os.kill(pid, number)


def decide_end(
    config: RunConfig, outcome: RunOutcome, found: Mapping[int, TerminationMessage | None]
) -> TerminationMessage:
    """Turn the ranks' ends into the pod's. Pure.

    Args:
        config: what was run.
        outcome: how the ranks ended.
        found: the results they left, by rank.
    """
    failed = next((item for item in outcome.exits if item.code != 0), None)
    if failed is None:
        return found.get(0) or _build_message(
            config, ExitCode.UNCLASSIFIED, Reason.INTERNAL, "rank 0 ended without a result", "look at the pod's log"
        )
    committed = found.get(0)
    if committed is not None and committed.exit_code == 0 and (committed.manifest_sha256 or committed.prepared_sha256):
        # What is committed can't be taken back: another attempt would only find it done.
        return committed
    result = found.get(failed.rank)
    if result is not None and result.exit_code == failed.code:
        return _add_first_rank(result, found.get(0))
    if outcome.is_interrupted:
        text = "a signal stopped the pod before the stage was finished"
        remedy = "nothing: the run goes on from its newest checkpoint, if there is one"
        return _build_message(config, ExitCode.INTERRUPTED, Reason.POD_DISRUPTED, text, remedy)
    return _build_crash_message(config, failed)


def _add_first_rank(result: TerminationMessage, first: TerminationMessage | None) -> TerminationMessage:
    """Tell of a rank's end what the first rank alone knows: it saves the checkpoints, and takes longest for it."""
    if first is None or first is result:
        return result
    if result.exit_code == first.exit_code == ExitCode.INTERRUPTED:
        return first
    known = ("step", "resumed_from_step", "lost_steps", "checkpoints", "checkpoint_failure", "warnings")
    return result.model_copy(update={name: getattr(first, name) for name in known})


def _build_crash_message(config: RunConfig, failed: RankExit) -> TerminationMessage:
    """Explain a rank that died without leaving a result."""
    if failed.code == ExitCode.KILLED and not failed.is_killed_by_launcher:
        return _build_message(
            config,
            ExitCode.KILLED,
            Reason.OUT_OF_MEMORY,
            f"the kernel killed rank {failed.rank} of stage {config.stage}, as it does when the pod's memory "
            f"(spec.resources.memory: {config.spec.resources.memory}) is exhausted",
            "raise spec.resources.memory, or lower spec.training.maxLength or spec.training.batchSize",
        )
    if failed.code > 128:
        number = failed.code - 128
        name = signal.Signals(number).name if number in list(signal.Signals) else f"signal {number}"
        text = f"rank {failed.rank} of stage {config.stage} died of {name}"
    else:
        text = f"rank {failed.rank} of stage {config.stage} ended with code {failed.code} and left no result"
    return _build_message(config, min(failed.code, 255), Reason.INTERNAL, text, "look at the pod's log")


def build_internal_message(config: RunConfig, error: Exception) -> TerminationMessage:
    """Describe an error nobody classified, in one sentence; its traceback belongs into the log."""
    text = logs.scrub_text(f"{type(error).__name__}: {' '.join(str(error).split())}")[:_MAX_MESSAGE]
    remedy = "look at the pod's log: this is an error of the trainer"
    return _build_message(config, ExitCode.UNCLASSIFIED, Reason.INTERNAL, text, remedy)


def _build_message(config: RunConfig, code: int, reason: Reason, text: str, remedy: str) -> TerminationMessage:
    return TerminationMessage(
        stage=config.stage, attempt=config.job.attempt, exit_code=code, reason=reason, message=text, remedy=remedy
    )


def _finish(message: TerminationMessage) -> int:
    """Write the termination message and return its exit code; a message that can't be written is logged instead."""
    text = run.build_termination_text(message)
    path = os.environ.get(run.TERMINATION_LOG_VARIABLE, run.TERMINATION_LOG_PATH)
    try:
        # Overwritten in place: the kubelet mounts this one file, it can't be replaced.
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        logger.warning("termination message could not be written to %s (%s): %s", path, error.strerror, text)
    level = logging.INFO if message.exit_code == 0 else logging.ERROR
    words = (f"{message.reason}:", message.message or "the stage is done", message.remedy)
    logger.log(level, "%s", " ".join(word for word in words if word))
    return message.exit_code

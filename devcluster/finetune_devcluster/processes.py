"""Background programs of one cluster: start, find again, stop.

Each started program leaves a record (process id and the kernel's start time) and a log in the cluster's state folder.
A later call, or another process, stops exactly these: a reused process id has another start time and is left alone.
Programs run in a session of their own, so Ctrl-C reaches only the driver, which then stops them in order.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from finetune_devcluster import errors, ownership

_LOG_TAIL_BYTES = 2000  # the last screenful: where a Kubernetes program names its reason


@dataclass(frozen=True)
class Process:
    """One started program, identified beyond reuse of its process id."""

    name: str
    pid: int
    start_ticks: int
    started_at: float


@dataclass(frozen=True)
class ProcessGroup:
    """The programs of one cluster."""

    directory: Path
    """State folder of the cluster; records go to `processes/`, logs to `logs/`."""
    prefix: tuple[str, ...] = ()
    """Words before every command, such as `nsenter …`; must replace itself by the command."""
    owner: str | None = None
    """The cluster the programs belong to; None for one that stands alone."""

    def start(self, name: str, argv: Sequence[str], environment: Mapping[str, str] | None = None) -> Process:
        """Start `argv` in the background under `name`, with `environment` added to this process's own."""
        command = [*self.prefix, *argv]
        log = self.log_path(name)
        log.parent.mkdir(parents=True, exist_ok=True)
        pid = os.posix_spawnp(
            command[0],
            command,
            {**os.environ, **(environment or {}), **(ownership.mark(self.owner) if self.owner else {})},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
            # Python ignores these two, and an ignored signal is inherited.
            setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
        )
        process = Process(name, pid, _read_start_ticks(pid) or 0, time.time())
        record = self._record_path(name)
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text(json.dumps(asdict(process)))
        return process

    def load(self) -> list[Process]:
        """Return the recorded programs in the order of their start, running or not."""
        records = [json.loads(path.read_text()) for path in (self.directory / "processes").glob("*.json")]
        return sorted((Process(**record) for record in records), key=lambda process: process.started_at)

    def check_running(self, name: str) -> None:
        """Raise with the end of the log when the program `name` has ended.

        Raises:
            ProcessEndedError: the program runs no more.
        """
        if not any(process.name == name and is_running(process) for process in self.load()):
            raise errors.ProcessEndedError(f"{name} (ended) must keep running; end of its log:\n{self.read_log(name)}")

    def read_log(self, name: str) -> str:
        """Return the end of the log of `name`."""
        log = self.log_path(name)
        return log.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace") if log.exists() else ""

    def log_path(self, name: str) -> Path:
        """Return where the output of `name` goes."""
        return self.directory / "logs" / f"{name}.log"

    def stop(self, grace_seconds: float, names: Sequence[str] | None = None) -> None:
        """Stop the programs (all, or those in `names`) last started first; kill what outlives `grace_seconds`."""
        for process in reversed(self.load()):
            if names is None or process.name in names:
                stop_process(process, grace_seconds)
                self._record_path(process.name).unlink(missing_ok=True)

    def _record_path(self, name: str) -> Path:
        return self.directory / "processes" / f"{name}.json"


def is_running(process: Process) -> bool:
    """Tell whether exactly this program still runs; one that ended and waits to be reaped does not."""
    _reap(process.pid)
    return _read_start_ticks(process.pid) == process.start_ticks


def stop_process(process: Process, grace_seconds: float) -> None:
    """Ask the program to end, kill it after `grace_seconds` (0: at once) and wait until it is gone."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        # Compared after opening: from here on the handle can only mean the program that was started.
        if _read_start_ticks(process.pid) == process.start_ticks:
            if grace_seconds > 0:
                signal.pidfd_send_signal(handle, signal.SIGTERM)
            if not select.select([handle], [], [], grace_seconds)[0]:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
                select.select([handle], [], [])
    except ProcessLookupError:
        pass  # it ended between the look and the signal
    finally:
        os.close(handle)
        _reap(process.pid)


def _reap(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):  # started by another process, which reaps it
        os.waitpid(pid, os.WNOHANG)


def _read_start_ticks(pid: int) -> int | None:
    """Return field 22 of /proc/PID/stat (proc(5): start time in clock ticks after boot), None for the dead."""
    try:
        # The second field is the name in parentheses and may hold spaces: count from its end.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else int(fields[19])

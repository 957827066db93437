"""Runs several trainings side by side in one process, a slice of CPU time each, so that they meet the same machine.

Each arm is a real Trainer in a thread of its own; only the one that holds the baton runs. Time is the thread's own CPU
time: what other processes do in between does not count.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import transformers

SLICE_SECONDS = 4.0
"""Of CPU time, at least one step: long enough that going from arm to arm costs nothing."""


@dataclass
class Arm:
    """One training.

    Attributes:
        name: for messages.
        build: makes the Trainer.
        num_tokens: real ones, of all rows it trains on.
        seconds: CPU time of its steps, once it has run.
        steps: of the optimizer, once it has run.
    """

    name: str
    build: Callable[[], transformers.Trainer]
    num_tokens: int
    seconds: float = 0.0
    steps: int = 0

    @property
    def tokens_per_second(self) -> float:
        return self.num_tokens / self.seconds


class _Baton(transformers.TrainerCallback):
    """Lets an arm run until its slice is used up and a step has ended; adds up the time of its steps."""

    def __init__(self, arm: Arm) -> None:
        self._arm = arm
        self.mine, self.others = threading.Semaphore(0), threading.Semaphore(0)
        self.has_ended = False
        self._began = 0.0
        self._left = SLICE_SECONDS

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.mine.acquire()
        self._began = time.thread_time()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        spent = time.thread_time() - self._began
        self._arm.seconds += spent
        self._arm.steps += 1
        self._left -= spent
        if self._left <= 0:
            self._left = SLICE_SECONDS
            self.others.release()
            self.mine.acquire()
        self._began = time.thread_time()


def run_interleaved(arms: Sequence[Arm]) -> None:
    """Train every arm to its end; afterwards each knows its CPU-seconds.

    Raises:
        Exception: what an arm raised; the others run to their ends first.
    """
    failures: list[Exception] = []

    def work(trainer: transformers.Trainer, baton: _Baton) -> None:
        try:
            trainer.train()
        except Exception as error:
            failures.append(error)
        finally:
            baton.has_ended = True
            baton.others.release()

    batons = [_Baton(arm) for arm in arms]
    threads = []
    for arm, baton in zip(arms, batons, strict=True):
        trainer = arm.build()
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.add_callback(baton)
        threads.append(threading.Thread(target=work, args=(trainer, baton), name=arm.name))
    for thread in threads:
        thread.start()
    while waiting := [baton for baton in batons if not baton.has_ended]:
        for baton in waiting:
            baton.mine.release()
            baton.others.acquire()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]

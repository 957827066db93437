"""Interrupts a train stage at any of the points where it looks for a signal, and carries it on by further attempts.

Every place where a stage can be ended asks `signals.check`, so "at the n-th time it asks" reaches each of them: inside
a step, in an evaluation, while files move. What a pod leaves is what S3 has; each attempt begins with an empty disk.
"""

import contextlib
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from finetune_api.errors import Interrupted
from finetune_api.run import RunConfig, TerminationMessage
from finetune_trainer import signals
from finetune_trainer.stages import train


@dataclass
class Asked:
    """What a stage was doing at each time it asked."""

    doings: list[str] = field(default_factory=list)


@contextlib.contextmanager
def signal_when(is_time: Callable[[list[str]], bool]) -> Iterator[Asked]:
    """Let SIGTERM come when a stage asks, by what it has been doing whenever it asked, this time last."""
    asked, check = Asked(), signals.check

    def count(doing: str) -> None:
        asked.doings.append(doing)
        if not signals._received and is_time(asked.doings):
            signals._received.append(signal.SIGTERM)
        check(doing)

    signals.check = count
    try:
        yield asked
    finally:
        signals.check = check
        signals._received.clear()


@dataclass
class Carried:
    """A run over all its attempts."""

    end: TerminationMessage
    interruptions: list[Interrupted]
    asked: list[Asked]


def carry_on(config: RunConfig, scratch: Path, numbers: list[int], *, first_attempt: int = 1) -> Carried:
    """Run a train stage that is interrupted once for each number, each time by the next attempt.

    Args:
        config: of the first attempt.
        scratch: each attempt has an empty folder below it.
        numbers: at which time it asks each attempt is interrupted, counted from 0.
        first_attempt: its number.
    """
    interruptions, asked = [], []
    for attempt, number in enumerate([*numbers, None], start=first_attempt):
        job = config.job.model_copy(update={"attempt": attempt})
        with signal_when(lambda doings, number=number: len(doings) - 1 == number) as found:  # type: ignore[misc]
            asked.append(found)
            try:
                end = train.run(config.model_copy(update={"job": job}), scratch / str(attempt))
                break
            except Interrupted as error:
                interruptions.append(error)
    return Carried(end, interruptions, asked)


def interrupt_when(config: RunConfig, scratch: Path, doing: str) -> Interrupted:
    """Run a train stage until it asks during `doing`, and interrupt it there."""
    with signal_when(lambda asked: asked[-1] == doing):
        try:
            train.run(config, scratch)
        except Interrupted as error:
            return error
    raise AssertionError(f"the stage ended before {doing}")

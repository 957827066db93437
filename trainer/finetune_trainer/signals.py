"""The wish to stop, as a flag: set by a signal, polled wherever work comes in small pieces.

The train stage polls at every micro-batch, evaluation batch and file, the prepare stage at every part of a download
and every thousand rows, a transfer also while nothing arrives. An exception thrown from the handler itself would be
lost inside a library: boto takes one for a broken connection and repeats the request. So there is none.
"""

import signal
from collections.abc import Callable
from types import FrameType

from finetune_api.errors import Interrupted

_received: list[int] = []


def install_handlers() -> None:
    """Turn SIGTERM and SIGINT into the flag."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _receive)


def is_received() -> bool:
    """Tell whether a signal came to this rank."""
    return bool(_received)


def build_interrupted(doing: str) -> Interrupted:
    """Say that a signal, of this rank or another one, interrupted something; `doing` as for `check`."""
    name = signal.Signals(_received[0]).name if _received else signal.SIGTERM.name
    return Interrupted(f"{name} interrupted {doing}", "nothing: the stage begins again")


def check(doing: str) -> None:
    """End here if a signal came.

    Args:
        doing: what is interrupted, for the message: `training at step 12`.

    Raises:
        Interrupted: a signal came.
    """
    if _received:
        raise build_interrupted(doing)


def _receive(number: int, _: FrameType | None) -> None:
    _received.append(number)


def build_progress(doing: str) -> Callable[[int], None]:
    """Return what takes part in a transfer's progress only to end it when a signal came.

    Args:
        doing: what is interrupted, as for `check`.
    """
    return lambda _num_bytes: check(doing)

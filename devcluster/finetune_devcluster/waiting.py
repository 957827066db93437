"""Waiting for a condition with a deadline.

The only place that lets time pass. A probe either returns its result or raises `NotYetError` with what it saw; when the
deadline passes, that last sight is in the error. Must never wait without a deadline.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from finetune_devcluster import errors

Result = TypeVar("Result")

# Short against the 1.3 s the API server takes, long enough that probing costs no measurable CPU (a guess).
_PAUSE_SECONDS = 0.05


class NotYetError(Exception):
    """Raised by a probe whose condition is not met; the message says what was seen instead."""


def wait_for(what: str, probe: Callable[[], Result], deadline_seconds: float) -> Result:
    """Call `probe` until it returns.

    Raises:
        DeadlineError: `probe` still raised `NotYetError` when `deadline_seconds` had passed.
    """
    deadline = time.monotonic() + deadline_seconds
    while True:
        try:
            return probe()
        except NotYetError as error:
            if time.monotonic() >= deadline:
                raise errors.DeadlineError(
                    f"{what} must come within {deadline_seconds:g} s; seen last: {error}"
                ) from error
        time.sleep(_PAUSE_SECONDS)

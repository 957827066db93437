"""Work of a tokenizer that must end in time although nothing can interrupt it.

A pattern of tokenizer.json may backtrack without end on a text that comes late in the data. Such work runs in threads
that are left behind when their time is over, and that keep no process from ending.
"""

import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from finetune_api.errors import ModelError
from finetune_trainer import signals

MAX_SECONDS = 60.0
"""Longest work on one batch of rows (a choice): it takes a fraction of a second, some seconds on a loaded node."""
_POLL_SECONDS = 0.5

T = TypeVar("T")


def start(function: Callable[[], T], turn: threading.Semaphore | None = None) -> "Future[T]":
    """Run a function in a thread of its own.

    Args:
        function: to run.
        turn: so many of them run at the same time; None: at once.
    """
    future: Future[T] = Future()

    def run() -> None:
        with turn or contextlib.nullcontext():
            try:
                future.set_result(function())
            except BaseException as error:  # whoever waits raises it: a panic of the tokenizer is no Exception
                future.set_exception(error)

    threading.Thread(target=run, name="tokenize", daemon=True).start()
    return future


def wait(future: "Future[T]", place: str) -> T:
    """Wait for work on rows.

    Args:
        future: from `start`.
        place: of the first of the rows.

    Raises:
        ModelError: it takes too long.
        Interrupted: a signal came.
    """
    end = time.monotonic() + MAX_SECONDS
    while True:
        with contextlib.suppress(TimeoutError):
            return future.result(timeout=min(_POLL_SECONDS, MAX_SECONDS))
        if future.done():
            return future.result()  # the function's own TimeoutError
        signals.check(f"the tokenizing at {place}")
        if time.monotonic() >= end:
            raise ModelError(
                "spec.model.uri: the tokenizer and its chat template must turn a batch of rows into tokens within"
                f" {MAX_SECONDS:g} seconds; they don't for the one that begins at {place}",
                "use the tokenizer files and the chat template that the model's makers publish: a pattern in"
                " tokenizer.json may search without end.",
            )

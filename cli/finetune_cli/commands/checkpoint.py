"""`finetune checkpoint`: ask a running training to save its state now, and wait until it lies in the store.

For whoever is about to take a node away or to pause a run. The wish is an annotation of the FineTuneJob; the operator
passes it on to the pod.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from finetune_api import group, wording
from finetune_api.kinds import status_conditions
from finetune_api.kinds.finetunejob import status
from finetune_api.kinds.finetunejob.status import ConditionType, FineTuneJobStatus, Milestone
from finetune_cli import exit_codes
from finetune_cli.kubectl import Kubectl, KubectlError

_PAUSE_SECONDS = 1.0
"""Between two looks (a choice): the operator asks the pod every 15 s."""


def checkpoint(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the FineTuneJob.", show_default=False)],
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Empty: that of the kubeconfig.")] = "",
    context: Annotated[str, typer.Option("--context", help="Of the kubeconfig. Empty: the current one.")] = "",
    timeout: Annotated[int, typer.Option("--timeout", min=1, help="Seconds to wait for the checkpoint.")] = 600,
) -> None:
    """Save a checkpoint of a running training now; needs kubectl and a cluster.

    Exit code: 0 saved, 1 not saved, 2 the cluster could not be asked.
    """
    kubectl = Kubectl(namespace, context)
    wish = datetime.now(UTC).isoformat(timespec="microseconds")
    try:
        before = _read(kubectl, name)
        _refuse_finished(name, before)
        kubectl.annotate_job(name, group.ANNOTATION_CHECKPOINT_NOW, wish)
        typer.echo(_describe_begin(name, before), err=True)
        answer = _wait(kubectl, name, _Wish(wish, before), timeout)
    except KubectlError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(exit_codes.UNCHECKED) from error
    typer.echo(answer.text, err=not answer.is_saved)
    if not answer.is_saved:
        raise typer.Exit(exit_codes.INVALID)


@dataclass(frozen=True, slots=True)
class _Wish:
    """What is waited for: a checkpoint that wasn't there before."""

    value: str
    before: FineTuneJobStatus


@dataclass(frozen=True, slots=True)
class _Answer:
    text: str
    is_saved: bool = False


def _read(kubectl: Kubectl, name: str) -> FineTuneJobStatus:
    manifest: dict[str, Any] = kubectl.get_job(name)
    try:
        return FineTuneJobStatus.model_validate(manifest.get("status") or {}, extra="ignore")
    except ValueError as error:
        raise KubectlError(f"the status of {name} can't be read: {wording.show_error(error)}") from error


def _refuse_finished(name: str, current: FineTuneJobStatus) -> None:
    if status_conditions.is_true(current.conditions, ConditionType.FINISHED):
        typer.echo(f"{name} has finished ({current.phase}): there is nothing to save", err=True)
        raise typer.Exit(exit_codes.INVALID)


def _describe_begin(name: str, current: FineTuneJobStatus) -> str:
    step = current.progress.step if current.progress is not None else 0
    if current.phase == status.Phase.TRAINING:
        return f"{name} trains (step {step}); waiting for its checkpoint"
    return f"{name} is {current.phase or status.Phase.PENDING}; its training saves a checkpoint as soon as it runs"


def _wait(kubectl: Kubectl, name: str, wish: _Wish, timeout: int) -> _Answer:
    ends_at = time.monotonic() + timeout
    while True:
        current = _read(kubectl, name)
        answer = _find_answer(name, current, wish)
        if answer is not None:
            return answer
        if time.monotonic() >= ends_at:
            told = current.checkpoint_request == wish.value
            state = "its pod was told and has saved none yet" if told else "no pod could be told yet"
            return _Answer(f"no checkpoint of {name} after {timeout} s: {state}")
        time.sleep(_PAUSE_SECONDS)


def _find_answer(name: str, current: FineTuneJobStatus, wish: _Wish) -> _Answer | None:
    """Return how the wish ended; None: it has not."""
    known = {(item.uri, item.time) for item in wish.before.checkpoints}
    new = next((item for item in current.checkpoints if (item.uri, item.time) not in known), None)
    if new is not None and current.checkpoint_request == wish.value:
        return _Answer(f"step {new.step} saved at {new.time}: {new.uri}", is_saved=True)
    condition = status_conditions.find_condition(current.conditions, ConditionType.CHECKPOINT_SAVED)
    is_told = current.checkpoint_request == wish.value
    if is_told and condition is not None and condition.reason == Milestone.CHECKPOINT_FAILED:
        return _Answer(f"{name} could not save a checkpoint: {wording.escape_controls(condition.message)}")
    if status_conditions.is_true(current.conditions, ConditionType.FINISHED):
        return _Answer(f"{name} has finished ({current.phase}) before it saved a checkpoint")
    return None

"""What a running pod tells of itself: read within its bounds, and whether it is worth writing down. Pure.

A pod belongs to whoever may run code in the namespace. What it says is shown, and changes nothing else.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from finetune_api import wording
from finetune_api.artifacts import RunLayout
from finetune_api.kinds.finetunejob.status import CheckpointStatus, Metric, Progress
from finetune_api.live import LiveProgress
from finetune_operator.runtime import logs

PERCENT_STEP = 5
"""A status is written for so much more progress (a choice): twenty writes in a run, however long."""


@dataclass(frozen=True, slots=True)
class Known:
    """What of the answers of a pod stands in the status.

    Attributes:
        layout: of the run; addresses outside of it are not believed.
        progress: as this pod told it; None: it has told nothing yet.
    """

    layout: RunLayout
    progress: Progress | None
    checkpoints: Sequence[CheckpointStatus]


def parse_report(body: bytes, layout: RunLayout) -> LiveProgress | None:
    """Read an answer; None where anything of it is beyond its bounds, or it names a folder that isn't the run's."""
    try:
        report = LiveProgress.model_validate_json(body, extra="ignore")
    except ValidationError:
        return None
    return report if are_inside(report.checkpoints or (), layout) else None


def are_inside(checkpoints: Sequence[CheckpointStatus], layout: RunLayout) -> bool:
    """Tell whether all checkpoints lie in the run's own folder."""
    return all(layout.is_inside(item.uri) for item in checkpoints)


def scrub_metrics(metrics: Sequence[Metric]) -> list[Metric]:
    """Make names and values that a pod wrote fit to be shown."""
    return [
        item.model_copy(
            update={
                "name": wording.cut(logs.scrub_text(item.name), 63),
                "value": wording.cut(logs.scrub_text(item.value), 64),
                "split": wording.cut(logs.scrub_text(item.split), 16) if item.split is not None else None,
            }
        )
        for item in metrics
    ]


def is_news(known: Known, report: LiveProgress) -> bool:
    """Tell whether an answer says enough that is new: a phase, an evaluation, a checkpoint, some percent."""
    old = known.progress
    if old is None:
        return True
    new = report
    evaluation = new.last_evaluation
    return (
        (new.stage is not None and new.stage != old.stage)
        or new.phase != old.phase
        or (new.percent is not None and abs(new.percent - old.percent) >= PERCENT_STEP)
        or (evaluation is not None and evaluation != old.last_evaluation)
        or (new.resumed_from_step is not None and new.resumed_from_step != old.resumed_from_step)
        or (new.checkpoints is not None and _list_addresses(new.checkpoints) != _list_addresses(known.checkpoints))
        or new.checkpoint_failure != old.checkpoint_failure
    )


def _list_addresses(checkpoints: Sequence[CheckpointStatus]) -> list[str]:
    return sorted(item.uri for item in checkpoints)

"""What the trainer's metrics say while it works: the series Prometheus would scrape, read from this machine."""

import http.client
import socket
from dataclasses import dataclass

from finetune_api import metrics

_TIMEOUT_SECONDS = 1.0
"""Of one reading (a choice): a trainer in a long step answers late, and the next reading comes soon."""


@dataclass(frozen=True, slots=True)
class Figures:
    """One reading; 0 and None where the trainer has not said yet."""

    phase: str = ""
    step: int = 0
    total_steps: int = 0
    loss: float | None = None


def find_free_port() -> int:
    """Return a port of this machine that nobody listens on; should another take it meanwhile, there are no figures."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def read_figures(port: int) -> Figures | None:
    """Return what the trainer says now; None where it doesn't answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/metrics")
        return parse_figures(connection.getresponse().read().decode())
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()


def parse_figures(text: str) -> Figures:
    """Read the exposition format.

    Raises:
        ValueError: it isn't that format.
    """
    from prometheus_client import parser  # noqa: PLC0415 - part of the extra trainer, which the command checks first

    values = {
        (sample.name, *sample.labels.values()): sample.value
        for family in parser.text_string_to_metric_families(text)
        for sample in family.samples
    }
    phases = [name.value for name in metrics.TrainerPhase if values.get((metrics.TRAINER_PHASE.name, name.value))]
    step = int(values.get((metrics.TRAINER_STEP.name,), 0))
    return Figures(
        phase=phases[-1] if phases else "",
        step=step,
        total_steps=int(values.get((metrics.TRAINER_STEPS_PLANNED.name,), 0)),
        loss=values.get((metrics.TRAINER_LOSS.name, "train")) if step else None,
    )

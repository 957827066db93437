"""What is done to a run, when, and to which run: drawn from a seed, so that each of them can be tried again. Pure.

Everything a seed decides is here; nothing here touches a cluster.
"""

import json
import random
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

EVERY_SECONDS = 10
"""Least that `runPolicy.checkpoint.everySeconds` may be."""
MAX_DISTURBANCES = 3
MAX_OUTAGE_SECONDS = 60.0


class Kind(StrEnum):
    """What befalls a run."""

    SIGTERM = "SIGTERM"
    KILL_RANK = "SIGKILL to a rank"
    KILL_LAUNCHER = "SIGKILL to the launcher"
    DELETE = "pod deleted"
    EVICT = "pod evicted"
    SUSPEND = "suspended, resumed"
    OPERATOR = "operator's pod killed"
    S3_REFUSES = "S3 refuses"
    S3_BREAKS_OFF = "S3 breaks off"


ENDS_POD = frozenset({Kind.SIGTERM, Kind.KILL_RANK, Kind.KILL_LAUNCHER, Kind.DELETE, Kind.EVICT, Kind.SUSPEND})
TOLD_POD = frozenset({Kind.SIGTERM, Kind.DELETE, Kind.EVICT})
"""The pod is told to end and nobody is to blame: counted in preemptionCount."""
OUTAGES = frozenset({Kind.S3_REFUSES, Kind.S3_BREAKS_OFF})


class Moment(StrEnum):
    """What a run is doing then, in the order of a run that nobody disturbs."""

    PREPARE = "prepare"
    FETCH = "fetch"
    STEPS = "steps"
    EVALUATION = "evaluation"
    CHECKPOINT = "upload of a checkpoint"
    PUBLISHING = "publishing"


_WEIGHTS = {
    Moment.PREPARE: 1,
    Moment.FETCH: 1,
    Moment.STEPS: 4,
    Moment.EVALUATION: 2,
    Moment.CHECKPOINT: 2,
    Moment.PUBLISHING: 2,
}
"""How often each is drawn: most of a run is steps."""


@dataclass(frozen=True)
class Disturbance:
    """One of them.

    Attributes:
        share: of the run's steps that are made by then.
        seconds: how long an outage lasts.
    """

    kind: Kind
    moment: Moment
    share: float
    seconds: float


@dataclass(frozen=True)
class Recipe:
    """What is trained, as a small run of ten to twenty seconds."""

    task: str
    model: str
    method: dict[str, str]
    steps: int


RECIPES = {
    "full": Recipe("SequenceClassification", "encoder", {"kind": "Full"}, 300),
    "lora": Recipe("SequenceClassification", "encoder", {"kind": "LoRA"}, 300),
    "head-only": Recipe("SequenceClassification", "encoder", {"kind": "HeadOnly"}, 400),
    "int8": Recipe("SequenceClassification", "encoder", {"kind": "LoRA", "quantization": "Int8"}, 200),
    "nf4": Recipe("InstructionTuning", "decoder", {"kind": "LoRA", "quantization": "NF4"}, 200),
    "prose": Recipe("CausalLM", "decoder", {"kind": "Full"}, 300),
}


@dataclass(frozen=True)
class Plan:
    """One disturbed run."""

    seed: int
    recipe: str
    every_seconds: int | None
    disturbances: tuple[Disturbance, ...]


def draw_plan(seed: int) -> Plan:
    """Draw what is done to the run of a seed; recipes, intervals and kinds take turns, the rest is chance."""
    chance, names, kinds = random.Random(seed), list(RECIPES), list(Kind)
    moments = list(_WEIGHTS)
    drawn = []
    for number in range(chance.randint(1, MAX_DISTURBANCES)):
        kind = kinds[(seed + number * 4) % len(kinds)]
        [moment] = chance.choices(moments, list(_WEIGHTS.values()))
        drawn.append(Disturbance(kind, moment, chance.uniform(0.1, 0.9), chance.uniform(5, MAX_OUTAGE_SECONDS)))
    drawn.sort(key=lambda item: (_rank(item.moment), item.share))
    return Plan(seed, names[seed % len(names)], EVERY_SECONDS if seed // len(names) % 2 else None, tuple(drawn))


def _rank(moment: Moment) -> int:
    return {Moment.PREPARE: 0, Moment.FETCH: 1, Moment.PUBLISHING: 3}.get(moment, 2)


def build_spec(recipe: Recipe, every_seconds: int | None) -> dict[str, Any]:
    """Build the spec of a run but for its data, model and output addresses and its storage."""
    checkpoint = {"everySeconds": every_seconds} if every_seconds else {}
    return {
        "task": recipe.task,
        "method": recipe.method,
        "training": {"maxSteps": recipe.steps, "batchSize": 4, "maxLength": 32, "learningRate": "1e-3"},
        "evaluation": {"every": "Steps", "everySteps": recipe.steps // 4},
        # Every attempt of a killed pod is counted, and an outage may cost one too.
        "runPolicy": {"checkpoint": checkpoint, "backoffLimit": 10},
        # One thread: sums in another order are other weights. Three such pods fit on two cores.
        "trainer": {"env": [{"name": "OMP_NUM_THREADS", "value": "1"}]},
        "resources": {"gpus": 0, "cpu": "600m", "memory": "2Gi", "scratch": "1Gi"},
    }


def build_rows(task: str, count: int = 240) -> bytes:
    """Return rows for a task as JSON lines."""
    endings = ("a warm and funny story", "a dull plot with no end")
    rows: list[dict[str, str]] = []
    for index in range(count):
        text = f"film {index} is {endings[index % 2]}"
        if task == "SequenceClassification":
            rows.append({"text": text, "label": ("positive", "negative")[index % 2]})
        elif task == "InstructionTuning":
            rows.append({"prompt": f"what is film {index}", "completion": endings[index % 2]})
        else:
            rows.append({"text": text})
    return "".join(json.dumps(row) + "\n" for row in rows).encode()

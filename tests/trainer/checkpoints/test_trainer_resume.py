"""A run that is interrupted gives what it would have given: the same weights, losses and report, to the last bit."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import interruptions
import pytest
import training_runs
from interruptions import Carried
from training_runs import RunBench, method

from finetune_api.run import RunConfig

STEPS = 12
"""Of three epochs: 32 rows, 8 a step."""

RUNS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "classify, LoRA, packed": ("SequenceClassification", "encoder", {"method": method("LoRA")}),
    "classify, full, padded": (
        "SequenceClassification",
        "encoder",
        {"method": method("Full"), "training": {"batchSize": 8, "packing": False}},
    ),
    "classify, head only": ("SequenceClassification", "encoder", {"method": method("HeadOnly")}),
    "continue, full, packed": ("CausalLM", "decoder", {"method": method("Full")}),
    "instruct, LoRA on int8": ("InstructionTuning", "decoder", {"method": method("LoRA", "Int8")}),
    "instruct, DoRA on NF4": ("InstructionTuning", "decoder", {"method": method("LoRA", "NF4", "DoRA")}),
    "classify, stops early": (
        "SequenceClassification",
        "encoder",
        {
            "method": method("LoRA"),
            "training": {"batchSize": 8, "earlyStopping": {"patience": 2, "minDelta": "0.9"}},
            "evaluation": {"every": "Steps", "everySteps": 3},
        },
    ),
}
SAMPLED = 3
"""Interruptions of each run in every test; `-m interruptions` tries all."""


@pytest.fixture(scope="module")
def bench(s3_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunBench]:
    with training_runs.open_bench(s3_server, tmp_path_factory.mktemp("models")) as bench:
        yield bench


@pytest.fixture(scope="module")
def undisturbed(bench: RunBench, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[dict[str, str], Carried]]:
    """What each run gives when nobody disturbs it, made when it is asked for first."""

    class Undisturbed(dict[str, tuple[dict[str, str], Carried]]):
        def __missing__(self, name: str) -> tuple[dict[str, str], Carried]:
            config = prepare(bench, name)
            carried = interruptions.carry_on(config, tmp_path_factory.mktemp("undisturbed"), [])
            self[name] = (read_digests(bench, config), carried)
            return self[name]

    return Undisturbed()


def prepare(bench: RunBench, name: str, **resolved: str) -> RunConfig:
    task, model, spec = RUNS[name]
    packing = {"packing": "false"} if "padded" in name else {}
    return bench.prepare(task, model, spec=spec, resolved={"totalSteps": str(STEPS)} | packing | resolved)


def read_digests(bench: RunBench, config: RunConfig) -> dict[str, str]:
    """Return the digest of each file that is published, but for the card, which names the run; and what was counted."""
    manifest, _ = bench.fetch_manifest(config)
    names = {entry.path.split("/", 3)[3]: entry.sha256 for entry in manifest.files}
    counts = {"steps": str(manifest.steps), "tokens": str(manifest.tokens), "outcome": manifest.outcome}
    return {name: digest for name, digest in names.items() if name != "model/README.md"} | counts


def choose(name: str, carried: Carried) -> list[list[int]]:
    """Choose where to interrupt a run: a few places of it, and all of its steps one after the other."""
    doings = carried.asked[0].doings
    first = next(number for number, doing in enumerate(doings) if doing.startswith("training"))
    return [[number] for number in sorted(random.Random(name).sample(range(first + 1, len(doings)), SAMPLED))]


@pytest.mark.parametrize("name", RUNS)
def test_an_interrupted_run_publishes_what_an_undisturbed_one_does(
    bench: RunBench, tmp_path: Path, undisturbed: dict[str, tuple[dict[str, str], Carried]], name: str
) -> None:
    want, carried = undisturbed[name]
    for numbers in choose(name, carried):
        config = prepare(bench, name)

        again = interruptions.carry_on(config, tmp_path / str(numbers), numbers)

        doing = carried.asked[0].doings[numbers[0]]
        assert len(again.interruptions) == 1
        assert (again.end.reason, again.end.step, doing) == (carried.end.reason, carried.end.step, doing)
        assert (read_digests(bench, config), doing) == (want, doing)


@pytest.mark.interruptions
@pytest.mark.parametrize("name", RUNS)
def test_wherever_a_run_is_interrupted_it_publishes_the_same(
    bench: RunBench, tmp_path: Path, undisturbed: dict[str, tuple[dict[str, str], Carried]], name: str
) -> None:
    want, carried = undisturbed[name]
    wrong = []
    for number, doing in enumerate(carried.asked[0].doings):
        config = prepare(bench, name)
        interruptions.carry_on(config, tmp_path / str(number), [number])
        if read_digests(bench, config) != want:
            wrong.append((number, doing))
    assert wrong == []

"""What a train stage makes of the checkpoints that it finds, and which of them it leaves."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import interruptions
import pytest
import training_runs
from training_runs import BUCKET, RunBench, method

from finetune_api.errors import Interrupted
from finetune_api.run import RunConfig
from finetune_trainer.stages import train
from finetune_trainer.telemetry import live


@pytest.fixture(scope="module")
def bench(s3_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunBench]:
    with training_runs.open_bench(s3_server, tmp_path_factory.mktemp("models")) as bench:
        yield bench


def prepare(bench: RunBench) -> RunConfig:
    spec = {"method": method("HeadOnly"), "evaluation": {"every": "End"}}
    return bench.prepare("SequenceClassification", "encoder", spec=spec, resolved={"totalSteps": "6"})


def list_checkpoints(bench: RunBench, config: RunConfig) -> dict[int, str]:
    """Return the key of each checkpoint's folder by its step."""
    prefix = f"output/{config.job.uid}/"
    keys = [prefix + key.replace("UID", config.job.uid) for key in bench.list_keys(config)]
    return {int(key.split("/step-")[1][:6]): key.rpartition("/")[0] for key in keys if "/step-" in key}


def interrupt_twice(bench: RunBench, config: RunConfig, tmp_path: Path) -> dict[int, str]:
    """Leave checkpoints of two steps, by two attempts."""
    for attempt, step in ((1, 3), (2, 5)):
        job = config.job.model_copy(update={"attempt": attempt})
        interruptions.interrupt_when(
            config.model_copy(update={"job": job}), tmp_path / str(attempt), f"training at step {step}"
        )
    found = list_checkpoints(bench, config)
    assert sorted(found) == [2, 4]
    return found


def finish(config: RunConfig, tmp_path: Path) -> tuple[int | None, list[str]]:
    """Run a third attempt to its end; return the step it went on from and what it warned of."""
    job = config.job.model_copy(update={"attempt": 3})
    interruptions.carry_on(config.model_copy(update={"job": job}), tmp_path / "3", [], first_attempt=3)
    return live.STATE.read().resumed_from_step, live.STATE.read_warnings()


def test_a_damaged_checkpoint_is_named_and_the_run_goes_on_from_the_one_before(bench: RunBench, tmp_path: Path) -> None:
    config = prepare(bench)
    newest = interrupt_twice(bench, config, tmp_path)[4]
    weights = f"{newest}/weights.safetensors"
    bench.client.put_object(Bucket=BUCKET, Key=weights, Body=b"something else")

    step, warnings = finish(config, tmp_path)

    assert step == 2
    assert warnings == [
        f"checkpoint s3://{BUCKET}/{newest} is damaged and was passed over: "
        "weights.safetensors has other content than its manifest says"
    ]


def test_a_pod_tells_its_share_of_all_steps_as_soon_as_it_knows_where_it_begins(
    bench: RunBench, tmp_path: Path
) -> None:
    config = prepare(bench)
    interruptions.interrupt_when(config, tmp_path / "1", "training at step 4")
    again = config.model_copy(update={"job": config.job.model_copy(update={"attempt": 2})})

    with (
        interruptions.signal_when(lambda _: live.STATE.read().resumed_from_step is not None),
        pytest.raises(Interrupted),
    ):
        train.run(again, tmp_path / "2")

    known = live.STATE.read()
    assert (known.step, known.total_steps, known.percent) == (3, 6, 50)


def test_of_a_run_that_has_published_no_checkpoint_is_left(bench: RunBench, tmp_path: Path) -> None:
    config = prepare(bench)
    interrupt_twice(bench, config, tmp_path)

    finish(config, tmp_path)

    assert list_checkpoints(bench, config) == {}


def test_checkpoints_that_shall_be_kept_are(bench: RunBench, tmp_path: Path) -> None:
    config = prepare(bench)
    policy = {"runPolicy": {"checkpoint": {"keep": 1, "keepAfterSuccess": True}}}
    spec = config.spec.model_validate(config.spec.model_dump(by_alias=True) | policy)
    config = config.model_copy(update={"spec": spec})
    for attempt, at in ((1, 3), (2, 5)):
        job = config.job.model_copy(update={"attempt": attempt})
        interruptions.interrupt_when(
            config.model_copy(update={"job": job}), tmp_path / str(attempt), f"training at step {at}"
        )
    # The one before went when this one stood.
    assert sorted(list_checkpoints(bench, config)) == [4]

    step, _ = finish(config, tmp_path)

    assert (step, sorted(list_checkpoints(bench, config))) == (4, [4])

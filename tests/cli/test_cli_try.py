"""`finetune try`: both stages on this machine, with real subprocesses and a tiny model."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from manifests import Manifest, make_manifest
from prepare_bench import make_reviews, write_jsonl
from rich.console import Console
from tiny_models import build_encoder
from typer.testing import CliRunner, Result

from finetune_api import validation
from finetune_api.exits import ExitCode
from finetune_api.kinds.finetunejob.spec import FineTuneJobSpec
from finetune_api.kinds.finetunejob.status import Reason
from finetune_api.run import Stage, TerminationMessage
from finetune_cli import main
from finetune_cli.commands import try_locally
from finetune_cli.local import adapt, figures, inputs, machine, stages, view
from finetune_cli.local.figures import Figures
from finetune_cli.local.stages import LocalRun
from finetune_demo import datasets, models

ROOT = Path(__file__).parents[2]

SPEC: dict[str, Any] = {
    "task": "SequenceClassification",
    "model": {"uri": "s3://models/tiny/"},
    "data": [{"name": "reviews", "train": {"uri": "s3://datasets/reviews.jsonl"}}],
    "output": {"uri": "s3://runs/reviews"},
    "training": {"epochs": "3", "maxLength": 32},
    "resources": {"gpus": 1, "memory": "2Gi"},
    "storage": {"secretName": "s3-credentials", "endpointURL": "http://s3.demo.svc:8333"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("buckets")
    build_encoder(root / "models" / "tiny")
    (root / "datasets").mkdir()
    (root / "datasets" / "reviews.jsonl").write_text(write_jsonl(make_reviews(60)))
    (root / "datasets" / "unlabelled.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n')
    return root


def _write(path: Path, spec: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(make_manifest("reviews", spec=spec)))
    return path


def _try(*arguments: object) -> Result:
    return CliRunner().invoke(main.build_app(), ["try", *(str(item) for item in arguments)])


def test_a_trial_tunes_a_model_and_shows_its_figures_beside_the_base_models(folder: Path, tmp_path: Path) -> None:
    file = _write(tmp_path / "job.yaml", SPEC)
    result = _try(file, "--inputs", folder, "--steps", "3", "--log", tmp_path / "log")
    assert result.exit_code == 0, result.output
    lines = result.stderr.splitlines()
    assert lines[:2] == [
        "note: spec.resources.gpus (1) is 0 here: the CPU trains",
        "note: the run ends after 3 optimizer steps: its figures are those of a trial",
    ]
    # A phase that is over before the next look is not shown.
    assert {line.partition(": ")[0] for line in lines[2:]} == {"prepare", "train"}
    words = [line.split() for line in result.stdout.splitlines()]
    assert words[0][:3] == ["reviews", "is", "tuned:"]
    assert ["metric", "rows", "base", "tuned"] in words
    [accuracy] = [line for line in words if line[:1] == ["accuracy"]]
    assert len(accuracy) == 4
    [model] = [line for line in words if line[0] == "model:"]
    assert {"README.md", "adapter_config.json"} <= {path.name for path in Path(model[1]).iterdir()}
    steps = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [line["name"] for line in steps] == ["reviews"] * len(steps)


def test_a_run_that_fails_says_why_what_to_do_and_where_the_log_is(folder: Path, tmp_path: Path) -> None:
    data = [{"name": "reviews", "train": {"uri": "s3://datasets/unlabelled.jsonl"}}]
    file = _write(tmp_path / "job.yaml", SPEC | {"data": data})
    result = _try(file, "--inputs", folder, "--log", tmp_path / "log")
    assert (result.exit_code, result.stdout) == (ExitCode.DATA, "")
    said = [line.partition(": ") for line in result.stderr.splitlines() if not line.startswith(("note", "prepare: "))]
    assert [name for name, _, _ in said] == ["prepare failed", "message", "remedy", "log"]
    assert said[0][2] == "DataError"
    assert "unlabelled.jsonl" in said[1][2]
    assert (tmp_path / "log").stat().st_size > 0


def test_what_is_missing_in_the_folder_is_said_at_once_with_its_place(folder: Path, tmp_path: Path) -> None:
    spec = SPEC | {"model": {"uri": "s3://models/none/"}}
    spec["data"] = [{"name": "a", "train": {"uri": "s3://datasets/no/*.jsonl"}, "test": {"uri": "s3://other/t.jsonl"}}]
    result = _try(_write(tmp_path / "job.yaml", spec), "--inputs", folder)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.splitlines() == [
        f"spec.model.uri (s3://models/none/) must lie at {folder}/models/none; put it there",
        f"spec.data[0].train.uri (s3://datasets/no/*.jsonl) must lie at {folder}/datasets/no; put it there",
        f"spec.data[0].test.uri (s3://other/t.jsonl) must lie at {folder}/other/t.jsonl; put it there",
    ]


def test_an_invalid_file_is_answered_as_validate_does(folder: Path, tmp_path: Path) -> None:
    result = _try(_write(tmp_path / "job.yaml", SPEC | {"training": {"lr": "1e-3"}}), "--inputs", folder)
    assert result.exit_code == 1
    assert "spec.training.lr is not a known field; did you mean learningRate?" in result.stderr


@pytest.mark.parametrize(
    ("documents", "want"),
    [([], "it holds none"), ([make_manifest("a"), make_manifest("b")], "it holds 2")],
    ids=["none", "two"],
)
def test_a_file_must_hold_one_job(documents: list[Manifest], want: str, tmp_path: Path) -> None:
    file = tmp_path / "jobs.yaml"
    file.write_text(yaml.safe_dump_all(documents))
    result = _try(file, "--inputs", tmp_path)
    assert (result.exit_code, result.stderr) == (2, f"{file} must hold one FineTuneJob to try; {want}\n")


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    result = _try(tmp_path / "none.yaml", "--inputs", tmp_path)
    assert (result.exit_code, result.stderr) == (
        2,
        f"{tmp_path}/none.yaml must be readable; No such file or directory\n",
    )


def test_without_the_trainer_the_command_names_what_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(try_locally, "_TRAINER_PACKAGES", ("finetune_trainer", "a_package_nobody_has"))
    result = _try(tmp_path / "job.yaml", "--inputs", tmp_path)
    assert (result.exit_code, result.stderr) == (
        2,
        "finetune try (without a_package_nobody_has) must have the extras cli and trainer installed; "
        "run: pip install 'finetune-operator[cli,trainer]'\n",
    )


# The parts.


def test_a_spec_is_adapted_to_this_machine_and_what_changed_is_said() -> None:
    spec = FineTuneJobSpec.model_validate(
        SPEC | {"evaluation": {"every": "Steps", "everySteps": 50}, "resources": {"gpuResource": "amd.com/gpu"}}
    )
    adapted = adapt.adapt_spec(spec, steps=20, gpus=0)
    assert (adapted.spec.training.epochs, adapted.spec.training.max_steps) == (None, 20)
    assert adapted.spec.evaluation.every_steps == 20
    assert (adapted.spec.resources.gpus, adapted.spec.resources.gpu_resource) == (0, "nvidia.com/gpu")
    assert (adapted.spec.storage.secret_name, adapted.spec.storage.endpoint_url) == ("", "")
    assert adapted.notes == (
        "spec.resources.gpus (1) is 0 here: the CPU trains",
        "the run ends after 20 optimizer steps: its figures are those of a trial",
    )


def test_a_spec_that_needs_no_change_gets_none() -> None:
    spec = FineTuneJobSpec.model_validate(SPEC | {"storage": {}, "resources": {"gpus": 0}})
    assert adapt.adapt_spec(spec, steps=None, gpus=0) == adapt.Adapted(spec, ())


@pytest.mark.parametrize(
    ("answer", "want"),
    [
        ("echo 'GPU 0: H200 (UUID: GPU-1)'; echo 'GPU 1: H200 (UUID: GPU-2)'", 2),
        ("echo 'No devices'", 0),
        ("exit 9", 0),
    ],
    ids=["two", "none", "a driver that fails"],
)
def test_the_gpus_are_those_the_driver_lists(
    answer: str, want: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{answer}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.count_gpus() == want
    monkeypatch.setenv("PATH", "")
    assert machine.count_gpus() == 0


def test_an_address_is_a_place_below_the_folder() -> None:
    assert inputs.find_path(Path("/x"), "s3://bucket/a b/c.jsonl") == Path("/x/bucket/a b/c.jsonl")


EXPOSED = """# HELP finetune_trainer_step Optimizer step reached.
# TYPE finetune_trainer_step gauge
finetune_trainer_step 7.0
# TYPE finetune_trainer_steps_planned gauge
finetune_trainer_steps_planned 20.0
# TYPE finetune_trainer_loss gauge
finetune_trainer_loss{split="train"} 0.5
# TYPE finetune_trainer_phase gauge
finetune_trainer_phase{phase="load"} 0.0
finetune_trainer_phase{phase="train"} 1.0
"""


@pytest.mark.parametrize(
    ("text", "want"), [(EXPOSED, Figures("train", 7, 20, 0.5)), ("", Figures())], ids=["in training", "at the start"]
)
def test_the_trainers_metrics_tell_how_far_it_is(text: str, want: Figures) -> None:
    assert figures.parse_figures(text) == want


def test_where_nobody_answers_there_are_no_figures() -> None:
    assert figures.read_figures(figures.find_free_port()) is None


def _make_run(folder: Path, tmp_path: Path) -> LocalRun:
    spec = adapt.adapt_spec(FineTuneJobSpec.model_validate(SPEC), steps=1, gpus=0).spec
    return LocalRun("default", "reviews", "uid-1", spec, folder, tmp_path, tmp_path / "log")


def test_an_interrupted_run_stops_the_trainer_and_publishes_nothing(folder: Path, tmp_path: Path) -> None:
    def interrupt(_stage: Stage, _figures: Figures) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stages.run_stages(_make_run(folder, tmp_path), interrupt)
    assert not (folder / "runs" / "reviews" / "runs" / "uid-1").exists()
    assert not (tmp_path / "train").exists()


@pytest.mark.parametrize(
    ("code", "want_reason"), [("exit(3)", "Internal"), ("os.kill(os.getpid(), 9)", "OutOfMemory"), ("0", "Internal")]
)
def test_a_trainer_that_dies_without_a_message_is_told_by_its_code(
    code: str, want_reason: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "python"
    program.write_text(f"#!{sys.executable}\nimport os\n{code}\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    ended = stages.run_stages(_make_run(folder, tmp_path), lambda _stage, _figures: None)
    assert (ended.is_success, ended.message.stage, ended.message.reason) == (False, Stage.PREPARE, want_reason)
    assert ended.message.exit_code == {"exit(3)": 3, "0": 1}.get(code, 137)
    assert ended.message.remedy


def test_the_documented_commands_make_the_folder_that_the_example_reads(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "cli.md").read_text()
    commands = (
        "python -m finetune_demo.datasets build/s3 movie-sentiment\n"
        "finetune try examples/movie-sentiment/job.yaml --inputs build/s3 --steps 20\n"
    )
    assert commands in page
    files = datasets.DATASETS[datasets.EXAMPLES["movie-sentiment"].dataset].files
    keys = [*files, f"{models.MINILM_PREFIX}config.json"]
    for key in keys:
        (tmp_path / key).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / key).touch()
    job = yaml.safe_load((ROOT / "examples" / "movie-sentiment" / "job.yaml").read_text())
    adapted = adapt.adapt_spec(FineTuneJobSpec.model_validate(job["spec"]), steps=20, gpus=0)
    assert validation.validate_spec(adapted.spec) == []
    assert inputs.find_missing(tmp_path, adapted.spec) == []


def test_on_a_terminal_there_is_a_bar_with_stage_step_and_loss() -> None:
    screen = io.StringIO()
    with view.ProgressView(Console(file=screen, force_terminal=True, width=100, color_system=None)) as progress:
        progress.show(Stage.PREPARE, Figures())
        progress.show(Stage.PREPARE, Figures("tokenize"))
        progress.show(Stage.TRAIN, Figures("load", 0, 20))
        progress.show(Stage.TRAIN, Figures("train", 7, 20, 0.5))
    last = screen.getvalue().rpartition("prepare")[2]
    assert "done" in last
    assert "train 7/20, loss 0.5000" in last


def test_a_failure_reaches_the_terminal_without_secrets_and_commands(tmp_path: Path) -> None:
    message = TerminationMessage(
        stage=Stage.TRAIN,
        attempt=1,
        exit_code=1,
        reason=Reason.INTERNAL,
        message="row \x1b[2J AWS_SECRET_ACCESS_KEY=abc",
        remedy="look at the log",
    )
    screen = io.StringIO()
    view.print_failure(Console(file=screen, width=100), message, tmp_path / "log")
    assert screen.getvalue().splitlines() == [
        "train failed: Internal",
        r"message: row \x1b[2J AWS_SECRET_ACCESS_KEY=***",
        "remedy: look at the log",
        f"log: {tmp_path}/log",
    ]

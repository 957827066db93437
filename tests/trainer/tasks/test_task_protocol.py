"""A task is its folder and its entry of facts: each keeps the protocol, and nothing outside asks which one it is."""

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from training_runs import build_config

from finetune_api.kinds.finetunejob.spec import MethodKind, Task
from finetune_api.tasks import TASKS
from finetune_trainer import tasks
from finetune_trainer.losses.parts import LossParts
from finetune_trainer.tasks import TaskHead, TaskPreparation

ROOT = Path(__file__).parents[3]
TRAINER = ROOT / "trainer" / "finetune_trainer"
FOLDERS = {task.name.lower() for task in TASKS}


def list_members(protocol: type) -> dict[str, Any]:
    """Return what a protocol asks for: its annotated constants and its functions."""
    functions = {name: item for name, item in vars(protocol).items() if inspect.isfunction(item) and name[0] != "_"}
    return dict.fromkeys(inspect.get_annotations(protocol)) | functions


def build_head(task: Task) -> TaskHead:
    return tasks.build_head(build_config(task, "any", {}, {}).spec, ["a", "b"])


def test_every_task_of_the_api_is_a_folder_and_no_other_is() -> None:
    assert {path.parent.name for path in (TRAINER / "tasks").glob("*/prepare.py")} == FOLDERS
    assert {path.parent.name for path in (TRAINER / "tasks").glob("*/train.py")} == FOLDERS
    assert len(FOLDERS) >= 3


@pytest.mark.parametrize("task", TASKS)
def test_a_task_has_all_that_the_protocol_asks_for_with_the_same_arguments(task: Task) -> None:
    for protocol, found in ((TaskPreparation, tasks.find_preparation(task)), (TaskHead, build_head(task))):
        for name, wanted in list_members(protocol).items():
            assert hasattr(found, name), name
            if wanted is not None:
                want = [item for item in inspect.signature(wanted).parameters if item != "self"]
                assert list(inspect.signature(getattr(found, name)).parameters) == want


@pytest.mark.parametrize("task", TASKS)
def test_a_task_reads_the_roles_and_measures_the_metrics_of_its_facts(task: Task) -> None:
    roles = {role for shape in tasks.find_preparation(task).SHAPES for role in shape.roles}
    scores = build_head(task).build_scores()
    right = torch.tensor([0, 1])
    scores.update(LossParts(torch.tensor(2.0), 2, torch.tensor(2), right, right))

    assert roles == set(TASKS[task].roles)
    assert set(scores.compute()) == set(TASKS[task].metrics)
    assert set(TASKS[task].learning_rates) == set(MethodKind)


def test_nothing_outside_its_folder_asks_which_task_it_is() -> None:
    modules = [path for path in TRAINER.rglob("*.py") if "tasks" not in path.relative_to(TRAINER).parts]
    named = re.compile(rf"\bTask\.[A-Z]|is_labelled|IS_LABELLED|tasks\.({'|'.join(FOLDERS)})\b")
    asking = [f"{path}: {line}" for path in modules for line in path.read_text().splitlines() if named.search(line)]
    assert asking == []
    assert len(modules) > 40

"""`make new-task` writes a task that keeps the protocol and whose tests pass before anybody has touched it."""

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_task_protocol import list_members

from finetune_api.kinds.finetunejob.spec import Task
from finetune_trainer import tasks
from finetune_trainer.tasks import TaskPreparation

ROOT = Path(__file__).parents[3]
NEW = Task.TOKEN_CLASSIFICATION


@pytest.fixture
def script() -> Any:
    specification = importlib.util.spec_from_file_location("new_task", ROOT / "scripts" / "new_task.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def written(script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The files of a new task, importable beside the others."""
    for path, text in script.render_files(NEW).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    monkeypatch.setattr(tasks, "__path__", [*tasks.__path__, str(tmp_path / script.TASKS_FOLDER)])
    yield tmp_path
    for name in [name for name in sys.modules if f"tasks.{NEW.name.lower()}" in name]:
        del sys.modules[name]


def test_a_new_task_has_a_folder_and_a_test(script: Any) -> None:
    assert sorted(map(str, script.render_files(NEW))) == [
        "tests/trainer/tasks/test_task_token_classification.py",
        "trainer/finetune_trainer/tasks/token_classification/__init__.py",
        "trainer/finetune_trainer/tasks/token_classification/prepare.py",
        "trainer/finetune_trainer/tasks/token_classification/train.py",
    ]


def test_a_new_task_keeps_the_protocol(written: Path) -> None:
    preparation = tasks.find_preparation(NEW)
    assert Path(str(preparation.__dict__["__file__"])).is_relative_to(written)
    assert [name for name in list_members(TaskPreparation) if not hasattr(preparation, name)] == []


def test_the_tests_of_a_new_task_pass(written: Path) -> None:
    run = "import sys, pytest; from finetune_trainer import tasks; tasks.__path__.append(sys.argv[1])"
    folders = [str(written / "trainer/finetune_trainer/tasks"), str(written / "tests")]
    command = f"{run}; raise SystemExit(pytest.main([sys.argv[2], '-q', '-c', '/dev/null', '-p', 'no:cacheprovider']))"
    ended = subprocess.run(
        [sys.executable, "-c", command, *folders],
        env={"PYTHONPATH": str(ROOT / "tests" / "support"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_a_name_that_is_no_free_task_is_answered_with_those_there_are(
    script: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main(["CausalLM"]) == 64
    assert capsys.readouterr().err == (
        "NAME (CausalLM) must be one of TokenClassification, Seq2SeqLM, QuestionAnswering, Preference, Reinforcement;"
        " add others to Task in spec.py first\n"
    )

"""Writes the skeleton of a task: the folder and the test of CausalLM, the smallest one, under another name.

`make new-task NAME=TokenClassification` runs it. What it copies is trained and tested on every change, so a skeleton
never falls behind the protocol in trainer/finetune_trainer/tasks; from there on it is changed into the task.
"""

import argparse
import sys
from pathlib import Path

from finetune_api.kinds.finetunejob.spec import Task
from finetune_api.tasks import TASKS

ROOT = Path(__file__).parents[1]
TASKS_FOLDER = Path("trainer/finetune_trainer/tasks")
TESTS_FOLDER = Path("tests/trainer/tasks")
PATTERN = Task.CAUSAL_LM


def render_files(task: Task) -> dict[Path, str]:
    """Return the files of a new task by their path below the repository."""
    sources = sorted((ROOT / TASKS_FOLDER / PATTERN.name.lower()).glob("*.py"))
    rendered = {TASKS_FOLDER / task.name.lower() / path.name: path for path in sources}
    rendered[TESTS_FOLDER / f"test_task_{task.name.lower()}.py"] = (
        ROOT / TESTS_FOLDER / f"test_task_{PATTERN.name.lower()}.py"
    )
    names = {PATTERN.name.lower(): task.name.lower(), PATTERN.value: task.value, PATTERN.name: task.name}
    found: dict[Path, str] = {}
    for target, source in rendered.items():
        text = source.read_text(encoding="utf-8")
        for old, new in names.items():
            # The auto class of transformers stays until somebody chooses another.
            text = text.replace(f"AutoModelFor{old}", "\0").replace(f'"{PATTERN.name}"', "\1").replace(old, new)
            text = text.replace("\0", f"AutoModelFor{old}").replace("\1", f'"{PATTERN.name}"')
        found[target] = text
    return found


def main(arguments: list[str]) -> int:
    """Write the files of a task that has none yet, and say what is left to do."""
    parser = argparse.ArgumentParser(prog="make new-task", description=__doc__)
    parser.add_argument("name", help="the task as a spec names it; a member of finetune_api's Task")
    name = parser.parse_args(arguments).name
    free = [task.value for task in Task if task not in TASKS and not (ROOT / TASKS_FOLDER / task.name.lower()).exists()]
    if name not in free:
        sys.stderr.write(f"NAME ({name}) must be one of {', '.join(free)}; add others to Task in spec.py first\n")
        return 64
    task = Task(name)
    for path, text in render_files(task).items():
        (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / path).write_text(text, encoding="utf-8")
        sys.stdout.write(f"wrote {path}\n")
    sys.stdout.write(
        f"now: give Task.{task.name} its entry in api/finetune_api/tasks.py, run `make crd`, change prepare.py and"
        " train.py into the task, and add it to the examples\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

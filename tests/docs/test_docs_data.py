"""The page about data: every block is a file that its task reads, and every limit is the code's."""

import re
from pathlib import Path

import pytest
import yaml
from documented_commands import ROOT

from finetune_api.kinds.finetunejob.spec import Dataset, Task
from finetune_api.tasks import TASKS
from finetune_trainer import tasks
from finetune_trainer.data import labels, sources
from finetune_trainer.data.findings import Findings
from finetune_trainer.data.readers import parquet_files, record
from finetune_trainer.data.sources import LocalFile
from finetune_trainer.model import chat_template, files

PAGE = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
_FORMATS = {"json": ".jsonl", "csv": ".csv", "text": ".txt"}


def find_files() -> list[tuple[str, str, str]]:
    """Return task, end of the name and content of each file of the page."""
    found = []
    for section in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]:
        name, _, body = section.partition("\n")
        blocks = re.findall(r"^```(\w+)\n(.*?)^```$", body, re.MULTILINE | re.DOTALL)
        found += [(name, _FORMATS[language], content) for language, content in blocks if language in _FORMATS]
    return found


@pytest.mark.parametrize(("task", "suffix", "content"), find_files())
def test_a_file_of_the_page_is_read_whole(task: str, suffix: str, content: str, tmp_path: Path) -> None:
    path = tmp_path / f"rows{suffix}"
    path.write_text(content, encoding="utf-8")
    findings = Findings()
    rows = tasks.find_preparation(Task(task))
    samples, source = sources.open_source("train", [LocalFile(path, path.name)], rows, {}, findings)
    assert len(list(samples)) == 2
    assert (findings.kept, findings.notes, list(source.unused)) == ([], [], [])


def test_every_task_has_its_section_and_its_files() -> None:
    assert {task for task, _, _ in find_files()} == {str(task) for task in TASKS}
    assert len(find_files()) == 10
    for task, facts in TASKS.items():
        section = PAGE.split(f"## {task}\n")[1].split("\n## ")[0]
        assert [role for role in facts.roles if f"`{role}`" not in section] == []


def test_the_names_of_columns_are_those_that_are_recognised() -> None:
    for task in TASKS:
        section = PAGE.split(f"## {task}\n")[1].split("\n## ")[0]
        known = [names for shape in tasks.find_preparation(task).SHAPES for names in shape.required.values()]
        unnamed = {name for names in known for name in names if not re.search(rf"\b{name}\b", section)}
        assert unnamed <= {"question1", "query", "text_a"}, unnamed


def test_the_choice_of_columns_is_valid() -> None:
    [block] = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    Dataset.model_validate({"name": "d", "train": {"uri": "s3://data/t.csv"}, **yaml.safe_load(block)})


LIMITS = [
    *(sources.MAX_ROWS, record.MAX_COLUMNS, sources.MAX_NAMES, parquet_files.MAX_GROUP_VALUES),
    *(labels.MAX_LABELS, chat_template.MAX_CHARACTERS),
]


def test_the_limits_are_the_codes() -> None:
    section = PAGE.split("## Limits\n")[1]
    assert [limit for limit in LIMITS if f"{limit:,}" not in section] == []
    words = [
        f"{record.MAX_JSON_DEPTH} levels",
        f"{record.MAX_GROWTH} times",
        f"{labels.MAX_LABEL_CHARACTERS} characters",
        f"{chat_template.MAX_SECONDS:g} seconds",
        f"{files.MAX_BYTES['tokenizer.json'] // 2**20} MiB; {files.MAX_OTHER_BYTES // 2**20} MiB",
        f"{parquet_files.FREE_GROWTH_BYTES // 2**20} MiB or",
        f"{parquet_files.MAX_PAGE_BYTES // 2**30} GiB and",
        f"{record.MAX_ROW_BYTES // 2**20} MiB,",
    ]
    assert [text for text in words if text not in section] == []

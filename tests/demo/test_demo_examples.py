"""Every example is a valid job, and asks for files that its data set and model really hold."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune_api import validation
from finetune_demo import datasets, models

EXAMPLES_FOLDER = Path(__file__).parents[2] / "examples"


def _load_job(example: str) -> dict[str, Any]:
    job: dict[str, Any] = yaml.safe_load((EXAMPLES_FOLDER / example / "job.yaml").read_text(encoding="utf-8"))
    return job


def test_every_folder_is_an_example_with_a_job_and_a_page() -> None:
    folders = {path.name: {file.name for file in path.iterdir()} for path in EXAMPLES_FOLDER.iterdir() if path.is_dir()}
    assert folders == {example: {"job.yaml", "README.md"} for example in datasets.EXAMPLES}
    assert len(folders) == 5


@pytest.mark.parametrize("example", datasets.EXAMPLES)
def test_the_job_is_valid_and_is_called_like_its_folder(example: str) -> None:
    job = _load_job(example)
    assert [str(error) for error in validation.validate_manifest(job)] == []
    assert (job["metadata"]["name"], job["metadata"]["namespace"]) == (example, "demo")
    assert job["spec"]["output"]["uri"] == f"s3://runs/{example}"


@pytest.mark.parametrize("example", datasets.EXAMPLES)
def test_the_job_reads_the_files_that_are_built_for_it(example: str) -> None:
    spec = _load_job(example)["spec"]
    (data,) = spec["data"]
    asked = {data[split]["uri"] for split in ("train", "validation", "test")}
    parts = datasets.EXAMPLES[example]
    assert asked == {f"s3://{key}" for key in datasets.DATASETS[parts.dataset].files}
    model_keys = {"minilm": models.MINILM_PREFIX, "smollm2": models.SMOLLM2_KEY}
    assert spec["model"]["uri"] == f"s3://{model_keys[parts.model]}"


@pytest.mark.parametrize("example", datasets.EXAMPLES)
def test_the_page_names_the_commands_that_get_the_data_and_start_the_job(example: str) -> None:
    page = (EXAMPLES_FOLDER / example / "README.md").read_text(encoding="utf-8")
    assert f"python -m finetune_demo.datasets build/s3 {example}\n" in page
    assert f"kubectl apply -f examples/{example}/job.yaml\n" in page
    assert f"({example})" in (EXAMPLES_FOLDER / "README.md").read_text(encoding="utf-8")

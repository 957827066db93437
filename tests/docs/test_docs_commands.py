"""Commands, values and fields of the pages: run where that needs no cluster, else compared with their sources."""

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chart_rendering
import pytest
import yaml
from chart_rendering import CHART, render
from documented_commands import ROOT, Shell, find_blocks, find_commands, find_fences, link_checkout, split_commands

from finetune_api import crd, validation
from finetune_api.kinds.finetunejob.spec import Checkpoint
from finetune_cli.commands import schema
from finetune_demo import datasets

SHELL = Shell(ROOT)
VALUES_SCHEMA = json.loads((CHART / "values.schema.json").read_text())
NUM_BLOCKS = {
    "CONTRIBUTING.md": 0,
    "README.md": 3,
    "SECURITY.md": 0,
    "charts/finetune-operator/README.md": 1,
    "docs/architecture.md": 0,
    "docs/checkpoints.md": 1,
    "docs/cli.md": 6,
    "docs/data.md": 11,
    "docs/devcluster.md": 2,
    "docs/installation.md": 8,
    "docs/models.md": 0,
    "docs/performance.md": 0,
    "docs/pinned-internals.md": 0,
    "docs/reference.md": 0,
    "examples/README.md": 2,
    "examples/define-nouns/README.md": 1,
    "examples/domain-text/README.md": 1,
    "examples/movie-sentiment-full/README.md": 1,
    "examples/movie-sentiment-nf4/README.md": 1,
    "examples/movie-sentiment/README.md": 1,
}
"""How many blocks of commands or YAML each page has. A block more needs a test that uses it, here or in this folder."""


def test_no_page_has_a_block_that_nothing_runs_or_reads() -> None:
    pages = [
        *ROOT.glob("*.md"),
        *(path for top in ("docs", "examples", "charts") for path in (ROOT / top).rglob("*.md")),
    ]
    names = {path: path.relative_to(ROOT).as_posix() for path in pages}
    counts = {
        name: sum(bool(language) or block.startswith("$ ") for language, block in find_fences(path))
        for path, name in names.items()
        if not name.startswith("docs/decisions/") and name != "CHANGELOG.md"
    }
    assert counts == NUM_BLOCKS


def test_every_manifest_that_is_shipped_is_part_of_the_chart_or_the_job_of_an_example() -> None:
    found = [path.relative_to(ROOT) for path in (*ROOT.glob("[!.]*/**/*.yaml"), *ROOT.glob("[!.]*/**/*.yml"))]
    shipped = {path for path in found if path.parts[0] != "tests" and path.parts[:2] != CHART.relative_to(ROOT).parts}
    # The tests of the CRD, of the command line and of the cluster take every one of these.
    assert shipped == {Path("examples", name, "job.yaml") for name in datasets.EXAMPLES}


def test_the_first_commands_are_targets_that_help_lists() -> None:
    _, block = find_blocks("README.md")
    commands = split_commands(block)
    listed = {line.split()[0] for line in SHELL.run("make help").splitlines()}
    assert [command[0] for command in commands] == ["make"] * 3
    assert {target for _, target in commands} <= listed
    for _, target in commands:
        assert SHELL.run(f"make --dry-run {target}")


def test_the_first_commands_tune_a_real_model_without_a_cluster(tmp_path: Path) -> None:
    install, *commands = find_blocks("README.md")[0].splitlines(keepends=True)
    assert install == "make install && . .venv/bin/activate\n"
    shell = Shell(link_checkout(tmp_path))
    printed = shell.run("".join(commands))
    figures = dict(re.findall(r"^ *(\w+) +test +\S+ +([\d.]+) *$", printed, re.MULTILINE))
    assert float(figures["accuracy"]) > 0.5, printed
    [model] = re.findall(r"^model: +(\S+)", printed, re.MULTILINE)
    assert {"README.md", "adapter_model.safetensors"} <= {path.name for path in Path(model).iterdir()}


def test_the_job_of_the_first_page_is_valid() -> None:
    [text] = find_blocks("README.md", "yaml")
    assert validation.validate_manifest(yaml.safe_load(text)) == []


def test_the_images_are_built_from_files_of_the_checkout_and_pushed_under_their_tags() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    commands = split_commands(find_blocks("docs/installation.md")[0])
    built = {}
    for command in commands[:2]:
        program, build, file, dockerfile, tag, image, context = command
        assert (program, build, file, tag, context) == ("docker", "build", "--file", "--tag", ".")
        assert (ROOT / dockerfile).is_file()
        built[image] = dockerfile
    assert built == {
        f"registry.example.com/finetune-{name}:{version}": f"Dockerfile.{name}" for name in ("operator", "trainer")
    }
    assert commands[2:] == [["docker", "push", image] for image in built]


def _words_in_backticks() -> Iterator[str]:
    """Yield what the installation page writes as code outside of its blocks."""
    text = re.sub(r"^```.*?^```$", "", (ROOT / "docs" / "installation.md").read_text(), flags=re.MULTILINE | re.DOTALL)
    yield from re.findall(r"`([^`]+)`", text)


def _resolve(node: Any, path: str) -> Any:
    """Return the schema of a field, or None."""
    for key in path.split("."):
        node = (node or {}).get("properties", {}).get(key)
    return node


def test_every_value_of_the_installation_page_is_one_of_the_chart() -> None:
    table = re.findall(r"^\| (`.+?) \|", (ROOT / "docs" / "installation.md").read_text(), re.MULTILINE)
    named = {word for row in table for word in re.findall(r"`([a-z][\w.]*)[=`]", row)}
    tops = set(VALUES_SCHEMA["properties"])
    named |= {
        word.partition("=")[0] for word in _words_in_backticks() if word.partition(".")[0] in tops and "." in word
    }
    assert [word for word in named if _resolve(VALUES_SCHEMA, word) is None] == []
    assert len(named) == 30
    chosen = dict(word.split("=") for word in _words_in_backticks() if re.fullmatch(r"[a-z][\w.]+=\w+", word))
    assert set(chosen) == {"crds.install", "crds.keep", "userRoles.create"}
    assert {_resolve(VALUES_SCHEMA, name)["type"] for name in chosen} == {"boolean"}
    assert set(chosen.values()) == {"false"}


def test_every_field_of_the_installation_page_is_one_of_the_job() -> None:
    job = crd.build_crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    words = {word for word in _words_in_backticks() if re.fullmatch(r"(spec|status|storage)\.[\w.]+", word)}
    paths = {f"spec.{word}" if word.startswith("storage") else word for word in words}
    assert [path for path in paths if _resolve(job, path) is None] == []
    assert len(paths) == 13
    [_, text] = find_blocks("docs/installation.md", "yaml")
    assert [key for key in yaml.safe_load(text)["storage"] if _resolve(job, f"spec.storage.{key}") is None] == []


def test_the_values_for_prometheus_let_it_in() -> None:
    [values, _] = find_blocks("docs/installation.md", "yaml")
    objects = render(yaml.safe_load(values))
    policies = chart_rendering.find(objects, "NetworkPolicy")
    assert [item["metadata"]["namespace"] for item in policies] == ["finetune-system", "team-a"]
    assert all(item["spec"]["ingress"] for item in policies)
    assert {item["kind"] for item in objects} >= {"ServiceMonitor", "PodMonitor"}


@pytest.mark.parametrize("number", [0, 1], ids=["the command line", "with the trainer"])
def test_the_command_line_is_installed_from_a_checkout(number: int) -> None:
    # The third block is run by tests/cli/test_cli_try.py.
    block = find_blocks("docs/cli.md")[number]
    [command] = split_commands(block)
    # Nothing is installed and nothing downloaded: its dependencies are here.
    printed = SHELL.run(
        " ".join(["python -m", *command[:2], "--dry-run --no-index --no-build-isolation", f"'{command[2]}'"])
    )
    assert "Would install finetune-operator-" in printed
    assert "does not provide the extra" not in printed


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A folder with the job of docs/cli.md."""
    (tmp_path / "job.yaml").write_text((ROOT / "tests" / "cli" / "broken.yaml").read_text())
    return tmp_path


def test_the_program_prints_what_its_page_shows(broken: Path) -> None:
    # The other block is compared by tests/operator/test_operator_progress.py.
    block, _ = find_blocks("docs/cli.md", "")
    [command] = find_commands(block)
    printed = Shell(broken).run(f"{command} || [ $? = 1 ]")
    assert f"$ {command}\n{printed}" == block


def test_the_policy_that_the_page_of_checkpoints_shows_is_one(tmp_path: Path) -> None:
    [block] = find_blocks("docs/checkpoints.md", "yaml")
    job = yaml.safe_load((ROOT / "examples" / "movie-sentiment" / "job.yaml").read_text())
    job["spec"] |= yaml.safe_load(block)
    assert validation.validate_manifest(job) == []
    assert set(job["spec"]["runPolicy"]["checkpoint"]) == set(Checkpoint.model_json_schema()["properties"])


@pytest.mark.parametrize("form", ["text", "json", "github"])
def test_the_program_knows_the_formats_of_its_page(broken: Path, form: str) -> None:
    assert f"| `{form}` |" in (ROOT / "docs" / "cli.md").read_text()
    assert "spec.output" in Shell(broken).run(f"finetune validate --format {form} job.yaml || [ $? = 1 ]")


def test_the_program_writes_the_schema_that_editors_are_pointed_to(tmp_path: Path) -> None:
    [line] = find_blocks("docs/cli.md", "yaml")
    name = line.strip().partition("$schema=")[2]
    Shell(tmp_path).run(f"finetune schema --output {name}")
    assert json.loads((tmp_path / name).read_text()) == schema.build_json_schema()


def test_the_page_of_internals_names_tests_and_modules_that_exist() -> None:
    page = (ROOT / "docs" / "pinned-internals.md").read_text()
    tests = re.findall(r"tests/[\w/]+\.py", page)
    modules = re.findall(r"`((?:[a-z_]+/)+[a-z_]+\.py)`", page)
    folders = [ROOT, ROOT / "trainer" / "finetune_trainer", ROOT / "operator" / "finetune_operator"]
    missing = [name for name in {*tests, *modules} if not any((folder / name).is_file() for folder in folders)]
    assert missing == []
    assert len(tests) > 15

"""`finetune schema`: a schema that editors can use and that agrees with what the product accepts."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from malformed import MALFORMED, Malformed
from manifests import edit_manifest, make_manifest
from typer.testing import CliRunner

from finetune_api import rules
from finetune_cli import main
from finetune_cli.commands import schema

ROOT = Path(__file__).parents[2]
NUM_EXAMPLES = 5
ACROSS_FIELDS = {f"spec.{rule.path}" for rule in rules.RULES}


def _find_errors(manifest: Any) -> list[str]:
    validator = jsonschema.Draft202012Validator(schema.build_json_schema())
    return [error.json_path for error in validator.iter_errors(manifest)]


def test_the_schema_is_valid_draft_2020_12_without_words_of_kubernetes() -> None:
    built = schema.build_json_schema()
    jsonschema.Draft202012Validator.check_schema(built)
    assert built["$schema"] == jsonschema.Draft202012Validator.META_SCHEMA["$schema"]
    assert "x-kubernetes" not in json.dumps(built)


def test_every_example_satisfies_the_schema() -> None:
    examples = sorted((ROOT / "examples").rglob("job.yaml"))
    assert len(examples) == NUM_EXAMPLES
    assert {str(file): _find_errors(yaml.safe_load(file.read_text())) for file in examples} == {
        str(file): [] for file in examples
    }


@pytest.mark.parametrize(
    "case", [case for case in MALFORMED if case.want_path not in ACROSS_FIELDS], ids=lambda case: case.sentence
)
def test_what_breaks_one_field_breaks_the_schema_too(case: Malformed) -> None:
    manifest = edit_manifest(make_manifest(), case.path, case.value)
    if case.want_text != "path segments":
        assert _find_errors(manifest) != []


def test_a_name_or_the_beginning_of_one_is_required() -> None:
    assert _find_errors({**make_manifest(), "metadata": {}}) == ["$.metadata"]
    assert _find_errors({**make_manifest(), "metadata": {"generateName": "movies-"}}) == []


def test_the_schema_is_printed_or_written(tmp_path: Path) -> None:
    runner, file = CliRunner(), tmp_path / "schema.json"
    printed = runner.invoke(main.build_app(), ["schema"])
    written = runner.invoke(main.build_app(), ["schema", "--output", str(file)])
    assert (printed.exit_code, json.loads(printed.stdout)) == (0, schema.build_json_schema())
    assert (written.exit_code, written.output, file.read_text()) == (0, "", printed.stdout)


def test_a_file_that_can_not_be_written_ends_with_2(tmp_path: Path) -> None:
    result = CliRunner().invoke(main.build_app(), ["schema", "-o", str(tmp_path / "no" / "schema.json")])
    assert (result.exit_code, result.stderr) == (
        2,
        f"--output ({tmp_path}/no/schema.json) must be a writable file; No such file or directory\n",
    )

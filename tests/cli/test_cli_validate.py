"""`finetune validate` as a user meets it: exit codes, and everything it prints."""

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from malformed import MALFORMED, Malformed
from manifests import edit_manifest, make_manifest
from typer.testing import CliRunner, Result

from finetune_cli import main
from finetune_cli.manifests import sources

ROOT = Path(__file__).parents[2]
NUM_EXAMPLES = 5

BROKEN = (Path(__file__).parent / "broken.yaml").read_text()
"""The job that docs/cli.md shows."""
BROKEN_ERRORS = (
    (5, "spec.output is missing; it must be given"),
    (12, 'spec.training.learningRate (2e-4) must be a decimal string; write it in quotes: "2e-4"'),
    (13, "spec.training.bachSize is not a known field; did you mean batchSize?"),
    (16, "spec.method.lora.rank (0) must be greater than 0"),
)
OTHER = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: other}\n"


def _run(*arguments: str | Path, stdin: str | None = None) -> Result:
    return CliRunner().invoke(main.build_app(), [str(item) for item in arguments], input=stdin)


def _write(path: Path, *documents: object) -> Path:
    path.write_text("---\n".join(item if isinstance(item, str) else yaml.safe_dump(item) for item in documents))
    return path


def test_every_example_is_valid() -> None:
    examples = sorted((ROOT / "examples").rglob("job.yaml"))
    assert len(examples) == NUM_EXAMPLES
    result = _run("validate", *examples)
    assert (result.exit_code, result.output) == (
        0,
        f"{NUM_EXAMPLES} FineTuneJobs checked: {NUM_EXAMPLES} valid, 0 invalid\n",
    )


def test_all_errors_of_a_file_are_printed_with_their_lines(tmp_path: Path) -> None:
    file = _write(tmp_path / "job.yaml", BROKEN)
    result = _run("validate", file)
    lines = [f"{file}:{line}: {text}" for line, text in BROKEN_ERRORS]
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [*lines, "1 FineTuneJob checked: 0 valid, 1 invalid, 4 errors"]
    assert result.stderr == ""


def test_the_documentation_shows_what_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _write(tmp_path / "job.yaml", BROKEN)
    shown = f"```\n$ finetune validate job.yaml\n{_run('validate', 'job.yaml').stdout}```\n"
    assert shown in (ROOT / "docs" / "cli.md").read_text()


@pytest.mark.parametrize("case", MALFORMED, ids=lambda case: case.sentence)
def test_a_malformed_job_ends_with_1_and_names_field_and_rule(case: Malformed, tmp_path: Path) -> None:
    manifest = edit_manifest(make_manifest(), case.path, case.value)
    for path, value in case.also:
        manifest = edit_manifest(manifest, path, value)
    result = _run("validate", _write(tmp_path / "job.yaml", manifest), "--format", "json")
    [finding] = json.loads(result.stdout)["findings"]
    assert (result.exit_code, finding["path"]) == (1, case.want_path)
    assert case.want_text in finding["message"]
    assert finding["line"] > 0


def test_documents_of_other_kinds_are_skipped_and_said_to_be(tmp_path: Path) -> None:
    file = _write(tmp_path / "all.yaml", OTHER, make_manifest(), "a: 1\n")
    result = _run("validate", file)
    assert (result.exit_code, result.stdout.splitlines()) == (
        0,
        [
            f"{file}:1: skipped ConfigMap of v1",
            f"{file}:21: skipped a document without kind",
            "1 FineTuneJob checked: 1 valid, 0 invalid, 2 other documents skipped",
        ],
    )


@pytest.mark.parametrize(
    ("header", "want"),
    [
        ({"apiVersion": "finetune.dev/v1alpha"}, ["apiVersion (finetune.dev/v1alpha) must be finetune.dev/v1alpha1"]),
        ({"apiVersion": "finetune.dev/v1"}, ["apiVersion (finetune.dev/v1) must be finetune.dev/v1alpha1"]),
        ({"apiVersion": "fintune.dev/v1alpha1"}, ["apiVersion (fintune.dev/v1alpha1) must be finetune.dev/v1alpha1"]),
        ({"kind": "FinetuneJobs"}, ["kind (FinetuneJobs) must be FineTuneJob"]),
        (
            {"apiVersion": "finetune.dev/v1aplha1", "kind": "FineTunejob"},
            [
                "apiVersion (finetune.dev/v1aplha1) must be finetune.dev/v1alpha1",
                "kind (FineTunejob) must be FineTuneJob",
            ],
        ),
        (
            {"apiVersion": "finetunes.dev/v1alpha1", "kind": "FinetuneJob"},
            [
                "apiVersion (finetunes.dev/v1alpha1) must be finetune.dev/v1alpha1",
                "kind (FinetuneJob) must be FineTuneJob",
            ],
        ),
    ],
    ids=["a version cut short", "a later version", "a misspelt group", "a plural kind", "both", "both, another group"],
)
def test_a_misspelt_header_is_an_error_and_not_skipped(header: dict[str, str], want: list[str], tmp_path: Path) -> None:
    result = _run("validate", _write(tmp_path / "job.yaml", make_manifest() | header), "--format", "json")
    assert result.exit_code == 1
    assert [item["text"] for item in json.loads(result.stdout)["findings"]] == want


def test_a_kind_of_almost_this_name_in_another_group_is_skipped(tmp_path: Path) -> None:
    other = {"apiVersion": "tuning.example.com/v1", "kind": "FinetuneJob", "metadata": {"name": "a"}}
    result = _run("validate", _write(tmp_path / "job.yaml", other, make_manifest()))
    assert (result.exit_code, result.stdout.splitlines()[0]) == (
        0,
        f"{tmp_path}/job.yaml:1: skipped FinetuneJob of tuning.example.com/v1",
    )


def test_the_items_of_a_list_are_checked_with_their_place(tmp_path: Path) -> None:
    bad = make_manifest(spec__method={"kind": "Lora"})
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": [make_manifest(), bad]}, indent=1)
    result = _run("validate", _write(tmp_path / "list.json", text), "--format", "json")
    assert json.loads(result.stdout) == {
        "version": 1,
        "valid": 1,
        "invalid": 1,
        "findings": [
            {
                "file": f"{tmp_path}/list.json",
                "line": text.splitlines().index('     "kind": "Lora"') + 1,
                "job": "movies",
                "path": "items[1].spec.method.kind",
                "value": "Lora",
                "message": "must be one of Full, LoRA, HeadOnly; did you mean LoRA?",
                "text": "items[1].spec.method.kind (Lora) must be one of Full, LoRA, HeadOnly; did you mean LoRA?",
            }
        ],
        "skipped": [],
    }


def test_standard_input_is_read_for_a_dash() -> None:
    result = _run("validate", "-", stdin=BROKEN)
    assert (result.exit_code, result.stdout.splitlines()[0]) == (1, f"stdin:5: {BROKEN_ERRORS[0][1]}")


def test_a_folder_is_searched_for_yaml_and_json_but_not_what_is_hidden(tmp_path: Path) -> None:
    for name in ("a.yaml", "deep/er/b.yml", "deep/c.json", "deep/D.YAML"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(json.dumps(make_manifest()))
    for name in (".git/e.yaml", "notes.txt", "deep/f.yaml.bak"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("a: [")
    result = _run("validate", tmp_path)
    assert (result.exit_code, result.output) == (0, "4 FineTuneJobs checked: 4 valid, 0 invalid\n")


def test_workflow_commands_point_at_file_and_line_and_are_escaped(tmp_path: Path) -> None:
    file = _write(tmp_path / "a,b:c.yaml", BROKEN.replace("rank: 0", 'rank: "50%\\n::x"'))
    result = _run("validate", file, "--format", "github")
    place = str(file).replace(",", "%2C").replace(":", "%3A")
    wanted = [
        *(f"::error file={place},line={line},title=FineTuneJob::{text}" for line, text in BROKEN_ERRORS[:3]),
        f'::error file={place},line=16,title=FineTuneJob::spec.method.lora.rank ("50%25\\n::x") must be a whole number',
        "1 FineTuneJob checked: 0 valid, 1 invalid, 4 errors",
    ]
    assert (result.exit_code, result.stdout.splitlines()) == (1, wanted)


def test_control_characters_of_a_file_never_reach_the_terminal(tmp_path: Path) -> None:
    file = _write(tmp_path / "job.yaml", BROKEN.replace("rank: 0", 'rank: "\\e[31mred\\a"'))
    result = _run("validate", file)
    assert (
        f'{file}:16: spec.method.lora.rank ("\\x1b[31mred\\x07") must be a whole number' in result.stdout.splitlines()
    )
    assert "\x1b" not in result.stdout


@pytest.mark.parametrize(
    ("prepare", "want"),
    [
        (
            lambda folder: [folder / "missing.yaml"],
            "{folder}/missing.yaml must be readable; No such file or directory\n",
        ),
        (lambda folder: [folder], "{folder} must hold .yaml, .yml or .json files; it has none\n"),
        (
            lambda folder: [folder / "a", folder / "b"],
            "{folder}/a must be readable; No such file or directory\n"
            "{folder}/b must be readable; No such file or directory\n",
        ),
        (
            lambda folder: [_write(folder / "other.yaml", OTHER)],
            "files must hold at least one FineTuneJob of finetune.dev/v1alpha1; they hold none\n",
        ),
    ],
    ids=["a missing file", "an empty folder", "two missing files", "no FineTuneJob at all"],
)
def test_what_can_not_be_checked_ends_with_2(prepare: object, want: str, tmp_path: Path) -> None:
    assert callable(prepare)
    result = _run("validate", *prepare(tmp_path))
    assert (result.exit_code, result.stderr) == (2, want.format(folder=tmp_path))


@pytest.mark.parametrize("arguments", [["validate"], ["validate", "-", "--format", "xml"], ["valdate"]])
def test_a_wrong_command_line_ends_with_2(arguments: list[str]) -> None:
    result = _run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Usage: finetune" in result.stderr


@pytest.mark.parametrize(
    ("content", "want"),
    [
        (b"#" * (sources.MAX_FILE_BYTES + 1), "file must be at most 1,048,576 bytes; split it"),
        (b"name: \xff", "file must be UTF-8 text; byte 6 is not"),
    ],
    ids=["more than 1 MiB", "not UTF-8"],
)
def test_a_file_that_is_no_manifest_is_a_finding_and_the_others_are_checked(
    content: bytes, want: str, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_bytes(content)
    result = _run("validate", bad, _write(tmp_path / "good.yaml", make_manifest()))
    assert (result.exit_code, result.stdout.splitlines()) == (
        1,
        [f"{bad}: {want}", "1 FineTuneJob checked: 1 valid, 0 invalid, 1 error"],
    )


def test_a_job_with_a_byte_order_mark_is_valid(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(make_manifest()), encoding="utf-8-sig")
    assert _run("validate", file).exit_code == 0


def test_on_a_terminal_places_are_bold_and_the_words_stay_the_same(tmp_path: Path) -> None:
    file = _write(tmp_path / "job.yaml", BROKEN)
    controller, terminal = pty.openpty()
    environment = {"PATH": os.environ["PATH"], "TERM": "xterm-256color"}
    command = [str(Path(sys.executable).parent / "finetune"), "validate", str(file)]
    process = subprocess.Popen(command, stdout=terminal, env=environment)
    assert process.wait(timeout=60) == 1
    os.close(terminal)
    shown = os.read(controller, 65536).decode()
    os.close(controller)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown).replace("\r\n", "\n")
    assert shown.count("\x1b[1m") == len(BROKEN_ERRORS)
    assert plain == _run("validate", file).stdout

"""The entry point: what the script does where its extra is missing, and that it stays light."""

import subprocess
import sys

import pytest


def _run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("package", ["typer", "rich"])
def test_without_its_extra_the_command_names_what_installs_it(package: str) -> None:
    result = _run(f"import sys; sys.modules['{package}'] = None; from finetune_cli import main; main.app()")
    assert (result.returncode, result.stdout, result.stderr) == (
        2,
        "",
        f"finetune (without {package}) must have the extra cli installed; run: pip install 'finetune-operator[cli]'\n",
    )


def test_a_missing_module_of_our_own_is_not_hidden_behind_that_message() -> None:
    result = _run("import sys; sys.modules['finetune_api'] = None; from finetune_cli import main; main.app()")
    assert "No module named 'finetune_api" in result.stderr or "import of finetune_api" in result.stderr


def test_nothing_heavy_is_imported() -> None:
    code = "import sys; from finetune_cli import main; main.build_app(); print(sorted(sys.modules))"
    loaded = _run(code).stdout
    assert "finetune_cli.commands.validate" in loaded
    assert [name for name in ("torch", "kopf", "kubernetes", "boto3") if f"'{name}'" in loaded] == []


def test_help_lists_the_commands() -> None:
    result = _run("import sys; sys.argv = ['finetune', '--help']; from finetune_cli import main; main.app()")
    assert result.returncode == 0
    assert "validate" in result.stdout
    assert "schema" in result.stdout

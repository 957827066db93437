"""`finetune checkpoint` where no cluster can be asked; with one, see tests/operator/test_operator_progress.py."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from finetune_cli import main


def test_without_kubectl_the_command_names_where_it_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    result = CliRunner().invoke(main.build_app(), ["checkpoint", "movies"])
    assert (result.exit_code, result.output) == (
        2,
        "kubectl must be on the PATH; install it: https://kubernetes.io/docs/tasks/tools/\n",
    )


def test_what_kubectl_says_of_the_cluster_is_shown_as_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "kubectl"
    program.write_text("#!/bin/sh\necho 'E1130 a long log' >&2\nprintf 'no \\033[31mrights\\n' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    result = CliRunner().invoke(main.build_app(), ["checkpoint", "movies", "--context", "there"])
    assert (result.exit_code, result.output) == (2, "kubectl get: no \\x1b[31mrights\n")

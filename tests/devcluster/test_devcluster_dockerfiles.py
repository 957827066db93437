"""What an image is built from is read from its Dockerfile: nothing it uses may be missed."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune_devcluster import dockerfiles


@pytest.mark.parametrize(
    ("text", "arguments", "want"),
    [
        pytest.param("FROM python:3.11", {}, ["python:3.11"], id="a single stage"),
        pytest.param(
            "FROM a AS build\nFROM b\nCOPY --from=build /x /x\nFROM build",
            {},
            ["a", "b"],
            id="a stage is no base image",
        ),
        pytest.param("ARG BASE=a\nFROM ${BASE}", {}, ["a"], id="an argument with its default"),
        pytest.param("ARG BASE=a\nFROM $BASE", {"BASE": "b"}, ["b"], id="an argument that was given"),
        pytest.param("FROM --platform=linux/amd64 a\nFROM scratch", {}, ["a"], id="options and scratch"),
        pytest.param("# FROM commented\nfrom a", {}, ["a"], id="comments and small letters"),
    ],
)
def test_base_images_are_found(text: str, arguments: dict[str, str], want: list[str]) -> None:
    assert dockerfiles.parse_base_images(text, arguments) == want


@pytest.fixture
def context(tmp_path: Path) -> Path:
    for name in ("a.py", "pkg/b.py", "pkg/deep/c.py", "pkg/__pycache__/b.pyc", "notes.md", "data/x.bin"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "ignored", "want"),
    [
        pytest.param("COPY a.py /", "", ["a.py"], id="one file"),
        pytest.param("COPY a.py notes.md /x/", "", ["a.py", "notes.md"], id="several files"),
        pytest.param('COPY ["a.py", "/x/"]', "", ["a.py"], id="the list form"),
        pytest.param("COPY pkg /pkg", "", ["pkg/b.py", "pkg/deep/c.py"], id="a folder, without caches"),
        pytest.param("COPY *.py \\\n  /x/", "", ["a.py"], id="a pattern over two lines"),
        pytest.param("COPY --from=build /y /y\nADD https://host/file /z", "", [], id="nothing of the context"),
        pytest.param("RUN --mount=type=bind,source=pkg,target=/p x", "", ["pkg/b.py", "pkg/deep/c.py"], id="a mount"),
        pytest.param("COPY . /", "data\n**/*.md\npkg/deep\n", ["a.py", "pkg/b.py"], id="what .dockerignore leaves"),
        pytest.param("COPY . /", "*\n!a.py\n", ["a.py"], id="what .dockerignore takes back"),
    ],
)
def test_files_an_image_is_built_from_are_found(context: Path, text: str, ignored: str, want: list[str]) -> None:
    if ignored:
        (context / ".dockerignore").write_text(ignored)
    found = [str(path.relative_to(context)) for path in dockerfiles.list_inputs(text, context)]
    assert [name for name in found if name != ".dockerignore"] == want


def test_a_file_that_is_not_there_is_named(context: Path) -> None:
    with pytest.raises(ValueError, match=r"COPY missing.txt \(no such file\) must name files of"):
        dockerfiles.list_inputs("COPY missing.txt /", context)

"""The images that Dockerfiles start from, also where the public registry cannot be reached.

A base image is taken from our storage; else it is pulled; else, when its name has a recipe here, it is made from
Debian's packages under the same name, so the Dockerfiles stay as they are. `FINETUNE_BASE_IMAGES` chooses one way:
`auto` (the default), `pull` or `debian`. Which way was taken is said, never silently changed.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from finetune_devcluster import buildah, cache, commands, errors, programs, progress

_MODES = ("auto", "pull", "debian")


@dataclass(frozen=True)
class Recipe:
    """How to make a base image from Debian's packages."""

    packages: tuple[str, ...]
    script: str
    """Shell lines run in the new file system."""


_PYTHON = Recipe(
    ("ca-certificates", "python3", "python3-venv"),
    # As in the official image: python and pip in /usr/local/bin, and pip allowed to install.
    "ln -s /usr/bin/python3 /usr/local/bin/python3\n"
    "ln -s python3 /usr/local/bin/python\n"
    "rm -f /usr/lib/python3*/EXTERNALLY-MANAGED\n"
    "python3 -m zipfile -e /usr/share/python-wheels/pip-*.whl /usr/local/lib/python3*/dist-packages/\n"
    "printf '#!/bin/sh\\nexec /usr/local/bin/python3 -m pip \"$@\"\\n' > /usr/local/bin/pip\n"
    "chmod 755 /usr/local/bin/pip\n",
)
_RECIPES = {"python:3.11-slim-bookworm": _PYTHON, "python:3.11-slim": _PYTHON}

# What slim images leave out too; the character set converters alone are 9 MB, and Python brings its own.
_LEFT_OUT = ("/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*", "/usr/share/doc/*", "/usr/lib/*/gconv/*")

_DOCKERFILE = """\
FROM scratch
ADD base.tar /
ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8
CMD ["python3"]
"""


def ensure_images(names: Sequence[str], steps: progress.Steps) -> list[str]:
    """Put the base images `names` into our storage and return their ids.

    Raises:
        ValueError: FINETUNE_BASE_IMAGES is none of its values.
        CommandError: an image can neither be pulled nor made.
    """
    mode = os.environ.get("FINETUNE_BASE_IMAGES", "auto")
    if mode not in _MODES:
        raise ValueError(f"FINETUNE_BASE_IMAGES ({mode}) must be one of {', '.join(_MODES)}")
    found = {name: buildah.find_image(name) for name in names}
    if not all(found.values()):
        # One at a time: two builds that start together need the same base.
        with cache.locked("base-images"):
            found = {name: buildah.find_image(name) or _provide(name, mode, steps) for name in names}
    return [str(found[name]) for name in names]


def _provide(name: str, mode: str, steps: progress.Steps) -> str:
    recipe = _RECIPES.get(name)
    if mode == "pull" or (mode == "auto" and recipe is None):
        with steps.step(f"pull {name}"):
            buildah.run("pull", name)
    elif mode == "debian" or not _try_pull(name, steps):
        if recipe is None:
            known = ", ".join(sorted(_RECIPES))
            raise errors.CommandError(f"base image ({name}) must be one of {known}, or set FINETUNE_BASE_IMAGES=pull")
        with steps.step(f"make {name} from Debian packages"):
            _make(name, recipe)
    found = buildah.find_image(name)
    if found is None:
        raise errors.CommandError(f"base image {name} must be in storage after it was made; run again")
    return found


def _try_pull(name: str, steps: progress.Steps) -> bool:
    try:
        buildah.run("pull", "--retry=0", name)
    except errors.CommandError as error:
        steps.say(f"  {name} cannot be pulled ({str(error).splitlines()[-1][-200:]})")
        return False
    return True


def _make(name: str, recipe: Recipe) -> None:
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        script = directory / "script.sh"
        script.write_text(recipe.script)
        commands.run(
            [
                *(str(programs.find_program("mmdebstrap")), "--variant=minbase", "--quiet"),
                # A minimal system otherwise gets all of Perl (60 MB), which only converts old systems.
                *("--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr", "--include=usr-is-merged"),
                f"--include={','.join(recipe.packages)}",
                *(f"--dpkgopt=path-exclude={pattern}" for pattern in _LEFT_OUT),
                "--dpkgopt=path-include=/usr/share/doc/*/copyright",
                f'--customize-hook=chroot "$1" sh -e < {script}',
                *("bookworm", str(directory / "base.tar")),
            ]
        )
        (directory / "Dockerfile").write_text(_DOCKERFILE)
        tag = f"localhost/{name}"
        buildah.run("build", "--isolation=chroot", f"--tag={tag}", folder)

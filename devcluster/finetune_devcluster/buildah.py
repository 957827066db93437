"""buildah with its storage in our cache, apart from whatever else this machine uses buildah for."""

from __future__ import annotations

import json

from finetune_devcluster import cache, commands, errors, programs


def run(*arguments: str) -> str:
    """Run buildah with `arguments` on our storage and return what it printed.

    Raises:
        MissingProgramError: there is no buildah.
        CommandError: it failed.
    """
    storage = cache.cache_directory() / "images"
    return commands.run(
        [
            *(str(programs.find_program("buildah")), "--storage-driver=overlay"),
            *(f"--root={storage / 'storage'}", f"--runroot={storage / 'run'}", *arguments),
        ]
    )


def find_image(name: str) -> str | None:
    """Return the id of the image `name` when it is in our storage."""
    try:
        return str(json.loads(run("inspect", "--type=image", name))["FromImageID"])
    except errors.CommandError:
        return None

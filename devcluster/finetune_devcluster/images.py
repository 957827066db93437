"""Images of this checkout, built by buildah and put into a cluster's registry.

An image's tag is a digest of everything it is built from, so an unchanged image is neither built nor pushed again, and
a pod that names it gets exactly that content. The last few of each name are kept, in buildah's storage and in the
registry; older ones are removed with every new one.
"""

from __future__ import annotations

import http.client
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from finetune_devcluster import (
    base_images,
    buildah,
    cache,
    commands,
    dockerfiles,
    host_settings,
    programs,
    progress,
    registry,
)

PROGRAMS = ("buildah", "mmdebstrap")

_KEPT_PER_NAME = 2  # the current one and the one before, for comparison; the trainer's has 5.6 GB each
# Layers of no image speed up the next build; below this they go: room for three builds of the trainer (a guess).
_MIN_FREE_BYTES = 40 << 30
_IN_USE = "images-in-use"  # the lock: shared by builds and pushes, alone for removing
_MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"


def build_image(
    dockerfile: Path,
    context: Path,
    name: str,
    target: registry.Registry,
    *,
    arguments: Mapping[str, str] | None = None,
    steps: progress.Steps | None = None,
) -> str:
    """Build `dockerfile`, push it to `target`, and return the reference a pod uses; do only what is still to do.

    Args:
        dockerfile: The Dockerfile.
        context: Folder its COPY lines refer to; `.dockerignore` in it is honoured.
        name: Name of the image, such as `trainer`.
        target: Registry of the cluster, `cluster.registry`.
        arguments: Build arguments.
        steps: Where to show what is done; silent by default.

    Raises:
        MissingProgramError: buildah or mmdebstrap is not installed.
        CommandError: the build or the push failed; the error carries the end of its output.
    """
    steps = steps or progress.Steps(quiet=True)
    programs.require_root("images are built with its rights")
    programs.require_programs(PROGRAMS)
    arguments = arguments or {}
    text = dockerfile.read_text()
    bases = base_images.ensure_images(dockerfiles.parse_base_images(text, arguments), steps)
    tag = _digest_of_inputs(text, context, [*bases, *(f"{key}={value}" for key, value in sorted(arguments.items()))])
    # Images of different names are built at the same time; nothing is removed meanwhile.
    with cache.locked(f"image-{name}"):
        if not _is_pushed(target, name, tag):
            local = f"localhost/{name}:{tag}"
            with cache.locked(_IN_USE, shared=True):
                with steps.step(f"build the image {name}"):
                    _build(dockerfile, context, local, arguments)
                with steps.step(f"push the image {name}"):
                    _push(local, f"{target.push_address}/{name}:{tag}")
            _prune(target, name, tag)
    return f"{target.pull_address}/{name}:{tag}"


def _digest_of_inputs(text: str, context: Path, others: Sequence[str]) -> str:
    files = dockerfiles.list_inputs(text, context)
    named = (part for path in files for part in (str(path.relative_to(context)).encode(), path.read_bytes()))
    return cache.digest_of([text.encode(), *(other.encode() for other in others), *named])


def _build(dockerfile: Path, context: Path, local: str, arguments: Mapping[str, str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        volumes = host_settings.save_build_volumes(Path(folder))
        buildah.run(
            *("build", "--isolation=chroot", "--network=host", "--layers", "--pull=never", "--format=oci"),
            *(f"--volume={volume}" for volume in volumes),
            *(f"--build-arg={key}={value}" for key, value in arguments.items()),
            *(f"--file={dockerfile}", f"--tag={local}", str(context)),
        )


def _push(local: str, remote: str) -> None:
    # Measured on the trainer's 5.6 GB: 77 s and 2.7 GB; higher levels cost minutes on two cores, 2026-11.
    compression = ("--compression-format=zstd", "--compression-level=1")
    buildah.run("push", "--quiet", "--tls-verify=false", "--format=oci", *compression, local, f"docker://{remote}")


def _is_pushed(target: registry.Registry, name: str, tag: str) -> bool:
    return _request(target, "HEAD", f"/v2/{name}/manifests/{tag}")[0] == http.HTTPStatus.OK


def _prune(target: registry.Registry, name: str, current: str) -> None:
    """Forget all but the newest images of `name`, and free the space nobody needs any more."""
    record = cache.cache_directory() / "images" / f"{name}.json"
    known: list[str] = json.loads(record.read_text()) if record.exists() else []
    tags = [current, *(tag for tag in known if tag != current)]
    with cache.locked_if_free(_IN_USE) as is_free:
        # Not while somebody builds or pushes: what is old then stays in the record until the next time.
        if is_free:
            # Builds that were killed leave theirs behind, with all they had installed.
            buildah.run("rm", "--all")
            for tag in tags[_KEPT_PER_NAME:]:
                _forget(target, name, tag)
            _free_space(has_dropped=len(tags) > _KEPT_PER_NAME)
            tags = tags[:_KEPT_PER_NAME]
        record.write_text(json.dumps(tags))


def _free_space(*, has_dropped: bool) -> None:
    if shutil.disk_usage(cache.cache_directory()).free < _MIN_FREE_BYTES:
        buildah.run("rmi", "--prune")
    if has_dropped:
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            json.dump(registry.build_config(), file)
            file.flush()
            commands.run([str(programs.find_program("docker-registry")), "garbage-collect", file.name])


def _forget(target: registry.Registry, name: str, tag: str) -> None:
    if digest := _request(target, "HEAD", f"/v2/{name}/manifests/{tag}")[1]:
        _request(target, "DELETE", f"/v2/{name}/manifests/{digest}")
    if buildah.find_image(f"localhost/{name}:{tag}"):
        buildah.run("rmi", f"localhost/{name}:{tag}")


def _request(target: registry.Registry, method: str, path: str) -> tuple[int, str | None]:
    connection = http.client.HTTPConnection(target.push_address, timeout=30)
    try:
        connection.request(method, path, headers={"Accept": _MANIFEST_TYPE})
        response = connection.getresponse()
        response.read()
        return response.status, response.getheader("Docker-Content-Digest")
    finally:
        connection.close()

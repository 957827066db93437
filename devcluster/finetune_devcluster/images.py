"""Images of this checkout, built by buildah and put into a cluster's registry.

An image's tag is a digest of everything it is built from, so an unchanged image is neither built nor pushed again, and
a pod that names it gets exactly that content. The last few of each name are kept, in buildah's storage and in the
registry; older ones are removed with every new one.
"""

from __future__ import annotations

import http.client
import json
import tempfile
from collections.abc import Mapping
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
    with cache.locked("images"):
        text = dockerfile.read_text()
        bases = base_images.ensure_images(dockerfiles.parse_base_images(text, arguments), steps)
        inputs = dockerfiles.list_inputs(text, context)
        files = [part for path in inputs for part in (str(path.relative_to(context)).encode(), path.read_bytes())]
        tag = cache.digest_of([text.encode(), json.dumps([bases, sorted(arguments.items())]).encode(), *files])
        if not _is_pushed(target, name, tag):
            local = f"localhost/{name}:{tag}"
            with steps.step(f"build the image {name}"):
                _build(dockerfile, context, local, arguments)
            with steps.step(f"push the image {name}"):
                _push(local, f"{target.push_address}/{name}:{tag}")
            _prune(target, name, tag)
    return f"{target.pull_address}/{name}:{tag}"


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
    record.write_text(json.dumps(tags[:_KEPT_PER_NAME]))
    if not (old := tags[_KEPT_PER_NAME:]):
        return
    for tag in old:
        digest = _request(target, "HEAD", f"/v2/{name}/manifests/{tag}")[1]
        if digest:
            _request(target, "DELETE", f"/v2/{name}/manifests/{digest}")
        if buildah.find_image(f"localhost/{name}:{tag}"):
            buildah.run("rmi", f"localhost/{name}:{tag}")
    buildah.run("rmi", "--prune")
    # Safe while the registry runs: pushes hold the same lock as this.
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        json.dump(registry.build_config(), file)
        file.flush()
        commands.run([str(programs.find_program("docker-registry")), "garbage-collect", file.name])


def _request(target: registry.Registry, method: str, path: str) -> tuple[int, str | None]:
    connection = http.client.HTTPConnection(target.push_address, timeout=30)
    try:
        connection.request(method, path, headers={"Accept": _MANIFEST_TYPE})
        response = connection.getresponse()
        response.read()
        return response.status, response.getheader("Docker-Content-Digest")
    finally:
        connection.close()

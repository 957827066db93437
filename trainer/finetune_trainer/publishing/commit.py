"""Publishing: every file first, then the manifest once, then the pointer to it. Nothing is ever half published.

A run has succeeded exactly when its manifest exists and verifies. The manifest is written with If-None-Match, so of two
attempts one wins; the other finds the winner's and reports that. Nothing here is deleted or overwritten but
`current.json`.
"""

import dataclasses
import hashlib
import importlib.metadata
import logging
import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from finetune_api import artifacts, run
from finetune_api.artifacts import CurrentRun, FileEntry, PreparedManifest, RunLayout, RunManifest
from finetune_api.errors import DataError, ReferenceNotFound
from finetune_api.kinds.finetunejob.status import Metric, MetricsStatus
from finetune_api.run import RunConfig
from finetune_trainer import signals
from finetune_trainer.publishing.replaced import describe_replaced
from finetune_trainer.storage import Store

logger = logging.getLogger(__name__)

_MAX_MANIFEST_BYTES = 16 * 2**20
"""A model of 10,000 shards has a manifest of 2 MiB; more is not ours (a choice)."""
_PACKAGES = ("accelerate", "bitsandbytes", "finetune-operator", "peft", "safetensors", "torch", "transformers")


@dataclass(frozen=True, slots=True)
class Published:
    """A committed run manifest and the digest of its bytes."""

    manifest: RunManifest
    sha256: str
    replaced: str = ""
    """Which other run `current.json` named before, in words."""


def find_published(store: Store, layout: RunLayout, scratch: Path) -> Published | None:
    """Return the run's manifest if an attempt has committed it, after fetching and checking every file it lists.

    Raises:
        DataError: there is a manifest, and what it lists is not there as it says.
    """
    try:
        content = store.read_bytes(layout.manifest, _MAX_MANIFEST_BYTES)
    except ReferenceNotFound:
        return None
    published = _parse(content, layout)
    folder = scratch / "published"
    wanted = {entry.path: entry for entry in published.manifest.files}
    try:
        files = [file for file in store.list_files(layout.run.join("attempts/")) if f"attempts/{file.name}" in wanted]
        found = store.fetch_files(files, folder, signals.build_progress("the check of what is published"))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    actual = {f"attempts/{entry.path}": entry for entry in found}
    _compare(layout, wanted, {path: (entry.size, entry.sha256) for path, entry in actual.items()})
    return published


def publish(store: Store, layout: RunLayout, manifest: RunManifest, attempt_folder: Path) -> Published:
    """Upload one attempt's files, commit its manifest and point `current.json` to it.

    Args:
        store: of the run.
        layout: of the run.
        manifest: complete but for its files.
        attempt_folder: local files of the attempt.

    Returns:
        What stands committed now: this manifest, or that of another attempt which came first.

    Raises:
        DataError: what stands committed doesn't verify.
        Interrupted: a signal came before the commit.
    """
    # A pod that was thought dead and replaced leaves alone what its replacement has published.
    published, digest = _find_committed(store, layout), ""
    if published is None:
        digest = _commit(store, layout, manifest, attempt_folder)
        published = _read_back(store, layout)
    if published.sha256 != digest:
        # Ours may be the object of a repeated request, or another attempt's: the bytes tell.
        logger.warning("another pod, of attempt %d, has already published this run", published.manifest.attempt)
    replaced = describe_replaced(store, layout)
    upload_current(store, layout, published)
    return dataclasses.replace(published, replaced=replaced)


def _find_committed(store: Store, layout: RunLayout) -> Published | None:
    try:
        return _read_back(store, layout)
    except ReferenceNotFound:
        return None


def _commit(store: Store, layout: RunLayout, manifest: RunManifest, attempt_folder: Path) -> str:
    """Upload an attempt's files and, if none is there, its manifest; return the sha256 of the latter."""
    folder = layout.writer(manifest.attempt, manifest.writer)
    uploaded = store.upload_folder(attempt_folder, folder, signals.build_progress("publishing"))
    prefix = f"{folder.key.removeprefix(layout.run.key)[1:]}/"
    files = [entry.model_copy(update={"path": prefix + entry.path}) for entry in uploaded]
    content = _dump(manifest.model_copy(update={"files": files}))
    signals.check("publishing")
    if store.put_if_absent(layout.manifest, content):
        logger.info("manifest committed to %s", layout.manifest)
    return hashlib.sha256(content).hexdigest()


def upload_table(store: Store, layout: RunLayout, config: RunConfig, attempt_folder: Path) -> None:
    """Upload the metrics by step of an attempt that failed, if it made a step."""
    table = attempt_folder / artifacts.METRICS_TABLE
    if table.exists():
        address = layout.writer(config.job.attempt, find_writer()).join(artifacts.METRICS_TABLE)
        store.put_bytes(address, table.read_bytes())
        logger.info("metrics up to the failure lie in %s", address)


def upload_current(store: Store, layout: RunLayout, published: Published) -> None:
    """Point `current.json` to a committed run."""
    manifest = published.manifest
    current = CurrentRun(
        uid=manifest.uid,
        name=manifest.name,
        model_uri=f"{layout.model(manifest.attempt, manifest.writer)}/",
        manifest_uri=str(layout.manifest),
        manifest_sha256=published.sha256,
    )
    store.put_bytes(layout.current, current.model_dump_json(indent=2).encode() + b"\n")


def _dump(manifest: RunManifest) -> bytes:
    return manifest.model_dump_json(indent=2).encode() + b"\n"


def _read_back(store: Store, layout: RunLayout) -> Published:
    """Read the committed manifest and check that every file it lists is there in its size."""
    published = _parse(store.read_bytes(layout.manifest, _MAX_MANIFEST_BYTES), layout)
    wanted = {entry.path: entry for entry in published.manifest.files}
    listed = {f"attempts/{file.name}": file.size for file in store.list_files(layout.run.join("attempts/"))}
    _compare(
        layout,
        wanted,
        {path: (listed[path], entry.sha256) for path, entry in wanted.items() if path in listed},
    )
    return published


def _parse(content: bytes, layout: RunLayout) -> Published:
    try:
        manifest = RunManifest.model_validate_json(content)
    except ValidationError as error:
        raise _damaged(layout, "is no run manifest") from error
    if manifest.uid != layout.uid:
        raise _damaged(layout, f"belongs to another run ({manifest.uid})")
    return Published(manifest, hashlib.sha256(content).hexdigest())


def _compare(layout: RunLayout, wanted: dict[str, FileEntry], found: dict[str, tuple[int, str]]) -> None:
    wrong = [path for path, entry in wanted.items() if found.get(path) != (entry.size, entry.sha256)]
    if wrong:
        raise _damaged(layout, f"lists files that are missing or changed: {', '.join(wrong[:5])}")


def _damaged(layout: RunLayout, what: str) -> DataError:
    return DataError(
        f"{layout.manifest} {what}; it must be what this run has published",
        "create the job anew: this run's files were changed after it had published them",
    )


def build_manifest(
    config: RunConfig,
    prepared: PreparedManifest,
    metrics: MetricsStatus,
    resolved: dict[str, str],
) -> RunManifest:
    """Describe this attempt, complete but for its files and for how the training ended."""
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return RunManifest(
        namespace=config.job.namespace,
        name=config.job.name,
        uid=config.job.uid,
        attempt=config.job.attempt,
        writer=find_writer(),
        run_digest=prepared.run_digest,
        files=[],
        inputs=prepared.inputs,
        metrics={"base": metrics.base, "tuned": metrics.tuned},
        resolved=resolved,
        versions=versions | {"python": platform.python_version(), "image": config.image},
    )


def build_metrics(base: dict[str, float] | None, tuned: dict[str, float], split: str) -> MetricsStatus:
    """Write figures as the status holds them: decimal strings of six digits."""

    def write(figures: dict[str, float] | None) -> list[Metric]:
        return [Metric(name=name, value=f"{value:.6g}", split=split) for name, value in (figures or {}).items()]

    return MetricsStatus(base=write(base), tuned=write(tuned))


def find_writer() -> str:
    """Name this pod, which has a folder of its own below the attempt; `local` outside of a cluster."""
    return os.environ.get(run.POD_UID_VARIABLE) or "local"


def build_layout(config: RunConfig) -> RunLayout:
    """Lay out the run's files below its output address."""
    return artifacts.build_run_layout(config.spec.output.uri, config.job.uid)

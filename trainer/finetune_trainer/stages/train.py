"""The train stage, top to bottom: settle, fetch, train, publish. Read this first.

What it goes on from, if an attempt before it was interrupted, is `continuation`'s.

`training` holds the part that needs torch and is imported while the inputs arrive. Rank 0 fetches and publishes; the
other ranks wait for its files and share the work in between. Nothing is visible to anybody before the manifest is.
"""

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from finetune_api import quantities
from finetune_api.artifacts import RunLayout, RunManifest
from finetune_api.errors import FineTuneError, Interrupted
from finetune_api.exits import ExitCode
from finetune_api.kinds.finetunejob.status import MemoryStatus, MetricsStatus
from finetune_api.run import RunConfig, Stage, TerminationMessage
from finetune_trainer import rank_environment, signals, storage, whole_files
from finetune_trainer.publishing import commit
from finetune_trainer.publishing.commit import Published
from finetune_trainer.stages import train_inputs
from finetune_trainer.stages.continuation import Continuation, open_archive, remove_checkpoints
from finetune_trainer.stages.train_inputs import Inputs
from finetune_trainer.storage import Store
from finetune_trainer.telemetry import prometheus, server

if TYPE_CHECKING:
    from finetune_trainer.training.run import Trained

logger = logging.getLogger(__name__)

_Found = Published | tuple[Inputs, Continuation]
_POLL_SECONDS = 0.2
"""Between two looks of a waiting rank (a choice)."""


def run(config: RunConfig, scratch: Path) -> TerminationMessage:
    """Run the train stage on this rank.

    Args:
        config: checked.
        scratch: local disk, shared by the ranks of this pod.

    Returns:
        The end of the stage, with the digest of the committed manifest.

    Raises:
        FineTuneError: whatever ends the run; nothing is published then.
    """
    began = time.monotonic()
    os.environ.setdefault("DISABLE_KUBEFLOW_INTEGRATION", "TRUE")  # transformers would report to it by itself
    layout = commit.build_layout(config)
    if rank_environment.get_rank() > 0:
        return _follow(config, scratch)
    server.start(Stage.TRAIN)

    # Fetch while torch is imported: both take seconds, one waits for the network and the other for the processor.
    prometheus.record_phase("fetch")
    store, found = _overlap(lambda: _fetch(config, layout, scratch))
    if isinstance(found, Published):
        logger.info("attempt %d has published this run; nothing to train", found.manifest.attempt)
        commit.upload_current(store, layout, found)
        _mark_ready(scratch, found.sha256)
        remove_checkpoints(store, layout, config)
        return _build_end(config, layout, found)
    inputs, continuation = found
    signals.check("the fetching of the inputs")
    _unpack_base(config, inputs)
    _mark_ready(scratch, "")
    logger.info("ready to load after %.1f s", time.monotonic() - began)

    # Train, compare and write everything to the scratch disk; then publish all files, the manifest, the pointer to it.
    output = scratch / "attempt"
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    with _ending(continuation, lambda: _leave_table(store, layout, config, output)):
        trained = _train(config, inputs, scratch, output, continuation)
        prometheus.record_phase("publish")
        signals.check("publishing")
        published = commit.publish(store, layout, _build_manifest(config, inputs, trained), output)
    logger.info("published after %.1f s", time.monotonic() - began)
    continuation.clean_up()
    return _build_end(config, layout, published, trained)


@contextlib.contextmanager
def _ending(continuation: Continuation, leave_table: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Leave the training's state to the next attempt when a signal ends this one, its figures when it fails.

    Raises:
        Interrupted: a signal came; says what stands.
    """
    try:
        yield
    except Interrupted as error:
        raise continuation.end(error) from error
    except Exception as error:
        # A rank that waits for one that a signal has ended sees a broken connection.
        if signals.is_received() and not isinstance(error, FineTuneError):
            raise continuation.end(signals.build_interrupted("the training")) from error
        leave_table()
        raise


def _leave_table(store: Store, layout: RunLayout, config: RunConfig, output: Path) -> None:
    try:
        commit.upload_table(store, layout, config, output)
    except FineTuneError as error:
        logger.warning("the metrics of this failed attempt could not be published: %s", error.message)


def _fetch(config: RunConfig, layout: RunLayout, scratch: Path) -> tuple[Store, _Found]:
    """Fetch the inputs; or what was published, where an attempt whose pod was lost had done so already."""
    store = storage.open_store(config.spec.storage)
    published = commit.find_published(store, layout, scratch)
    if published is not None:
        return store, published
    inputs = train_inputs.fetch_inputs(store, layout, config, scratch)
    archive = open_archive(store, layout, config, inputs.prepared)
    continuation = Continuation(config, scratch, inputs.prepared, archive)
    continuation.fetch()
    return store, (inputs, continuation)


def _overlap(fetch: Callable[[], tuple[Store, _Found]]) -> tuple[Store, _Found]:
    """Import torch and what stands on it while `fetch` runs."""
    with ThreadPoolExecutor(1, thread_name_prefix="fetch") as pool:
        pending = pool.submit(fetch)
        began = time.monotonic()
        from finetune_trainer.training import run as training

        logger.info("%s imported in %.1f s", training.__name__, time.monotonic() - began)
        return pending.result()


def _unpack_base(config: RunConfig, fetched: Inputs) -> None:
    from finetune_trainer.training import run as training

    if fetched.gguf_file is not None:
        prometheus.record_phase("unpack")
    training.unpack_base(config, fetched)


def _train(config: RunConfig, fetched: Inputs, scratch: Path, output: Path, continuation: Continuation) -> "Trained":
    from finetune_trainer.training import run as training

    return training.train(config, fetched, scratch, output, continuation.open)


def _ready_path(scratch: Path) -> Path:
    # The launcher empties this folder before it starts the ranks.
    return scratch / "ranks" / "ready"


def _mark_ready(scratch: Path, published_sha256: str) -> None:
    """Tell the other ranks that the inputs are there, or that there is nothing left to do."""
    path = _ready_path(scratch)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_files.replacing(path) as partial:
        partial.write_text(published_sha256, encoding="utf-8")


def _follow(config: RunConfig, scratch: Path) -> TerminationMessage:
    """Be a rank beside rank 0: wait for its files, train along, publish nothing."""
    from finetune_trainer.training import run as training

    while not _ready_path(scratch).exists():
        signals.check("waiting for rank 0's inputs")
        time.sleep(_POLL_SECONDS)
    if not _ready_path(scratch).read_text(encoding="utf-8"):
        inputs = train_inputs.load_inputs(scratch)
        continuation = Continuation(config, scratch, inputs.prepared)
        with _ending(continuation):
            training.train(config, inputs, scratch, scratch / "attempt", continuation.open)
    return TerminationMessage(stage=Stage.TRAIN, attempt=config.job.attempt, exit_code=ExitCode.OK, reason="Completed")


def _build_metrics(trained: "Trained") -> MetricsStatus:
    report = trained.report
    return commit.build_metrics(report.base, report.tuned, report.split)


def _build_manifest(config: RunConfig, fetched: Inputs, trained: "Trained") -> RunManifest:
    manifest = commit.build_manifest(config, fetched.prepared, _build_metrics(trained), trained.resolved)
    outcome = "EarlyStopped" if trained.is_early_stopped else "Completed"
    counts = {"steps": trained.step, "tokens": trained.num_tokens, "seconds": round(trained.seconds, 1)}
    return manifest.model_copy(update={"outcome": outcome, **counts})


def _build_end(
    config: RunConfig, layout: RunLayout, published: Published, trained: "Trained | None" = None
) -> TerminationMessage:
    """Report what stands committed, be it of this attempt or of an earlier one."""
    manifest = published.manifest
    # Pods of one attempt may follow one another.
    is_ours = trained is not None and manifest.writer == commit.find_writer()
    message = "" if is_ours else f"another pod, of attempt {manifest.attempt}, had published this run already"
    peak = MemoryStatus(measured_peak=quantities.build_quantity(trained.peak_bytes)) if trained else None
    return TerminationMessage(
        stage=Stage.TRAIN,
        attempt=config.job.attempt,
        exit_code=ExitCode.OK,
        reason=manifest.outcome,
        message=message,
        step=trained.step if trained else None,
        metrics=MetricsStatus(base=manifest.metrics.get("base", []), tuned=manifest.metrics.get("tuned", [])),
        manifest_sha256=published.sha256,
        artifacts_uri=f"{layout.model(manifest.attempt, manifest.writer)}/",
        run_digest=manifest.run_digest,
        memory=peak,
        resolved=manifest.resolved,
        warnings=[published.replaced] if published.replaced else [],
    )

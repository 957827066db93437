"""What the train stage reads: the prepared rows and the base model, fetched to the scratch disk and proved by digest.

Nothing that differs from what the prepare stage has seen is ever trained on.
"""

import hashlib
import logging
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from finetune_api import artifacts
from finetune_api.artifacts import InputEntry, PreparedManifest, RunLayout, S3Address
from finetune_api.errors import DataError
from finetune_api.run import PreparedReference, RunConfig
from finetune_trainer import signals
from finetune_trainer.batches import dataset
from finetune_trainer.model import files as model_files
from finetune_trainer.storage import Store

logger = logging.getLogger(__name__)

_MAX_PREPARED_BYTES = 2**20
_DATA, _BASE = "prepared", "base"


@dataclass(frozen=True, slots=True)
class Inputs:
    """Local copies of all a training reads."""

    prepared: PreparedManifest
    data: Path
    base: Path
    gguf_file: str | None
    """Name of the file in `base` that the model came as, for a GGUF model; the files beside it are unpacked from it."""


def fetch_prepared(store: Store, layout: RunLayout, reference: PreparedReference, folder: Path) -> PreparedManifest:
    """Fetch what the prepare stage made and check every byte of it.

    Raises:
        DataError: prepared.json or a file it lists is not the one the operator was told of.
    """
    source = layout.prepared(reference.attempt)
    address = source.join(artifacts.PREPARED)
    content = store.read_bytes(address, _MAX_PREPARED_BYTES)
    found = hashlib.sha256(content).hexdigest()
    if found != reference.sha256:
        raise DataError(
            f"{address} (sha256 {found}) must have the sha256 the prepare stage reported, {reference.sha256}",
            "create the job anew: its prepared files were changed",
        )
    try:
        prepared = PreparedManifest.model_validate_json(content)
    except ValidationError as error:
        raise DataError(
            f"{address} must be a prepared.json of this version", "use one image for both stages"
        ) from error
    wanted = {entry.path: entry for entry in prepared.files if entry.path.endswith(".parquet")}
    listed = store.list_files(S3Address(source.bucket, f"{source.key}/"))
    files = [file for file in listed if file.name in wanted]
    progress = signals.build_progress(model_files.FETCHING)
    entries = {entry.path: entry for entry in store.fetch_files(files, folder, progress)}
    wrong = [path for path, entry in wanted.items() if entries.get(path) != entry]
    if wrong:
        raise DataError(
            f"{source} must hold the files prepared.json lists; missing or changed: {', '.join(wrong)}",
            "create the job anew: its prepared files were changed",
        )
    for split in artifacts.SPLITS:
        # Here, so that the ranks of a pod find the work done once.
        dataset.unpack_rows(folder / f"{split}.parquet")
    (folder / artifacts.PREPARED).write_bytes(content)
    return prepared


def fetch_base(store: Store, config: RunConfig, expected: InputEntry, folder: Path) -> str | None:
    """Fetch the base model and check that it is the one the prepare stage has seen.

    Returns:
        The name of the one file of a GGUF model, else None.

    Raises:
        DataError: a file was changed since.
    """
    source = config.spec.model
    found = model_files.list_model(store, source)
    entries = store.fetch_files(found.files, folder, signals.build_progress(model_files.FETCHING))
    model_files.check_pin(source, entries, found.gguf_file)
    digest = f"sha256:{artifacts.compute_digest(entries)}"
    if digest != expected.digest:
        raise DataError(
            f"spec.model.uri ({source.uri}) has the digest {digest}; it must still have {expected.digest}, as in the "
            "prepare stage",
            "create the job anew when the model is final",
        )
    return found.gguf_file


def fetch_inputs(store: Store, layout: RunLayout, config: RunConfig, scratch: Path) -> Inputs:
    """Fetch prepared rows and base model below `scratch`.

    Raises:
        DataError: something is not what the prepare stage has seen.
    """
    began = time.monotonic()
    if config.prepared is None:
        raise AssertionError("the launcher lets no train stage without prepared output pass")
    for folder in (_DATA, _BASE):
        # An earlier container of the pod may have left half of it.
        shutil.rmtree(scratch / folder, ignore_errors=True)
    prepared = fetch_prepared(store, layout, config.prepared, scratch / _DATA)
    gguf_file = fetch_base(store, config, prepared.inputs[0], scratch / _BASE)
    logger.info("inputs fetched in %.1f s", time.monotonic() - began)
    return Inputs(prepared, scratch / _DATA, scratch / _BASE, gguf_file)


def load_inputs(scratch: Path) -> Inputs:
    """Find what rank 0 has fetched to this pod's disk."""
    prepared = PreparedManifest.model_validate_json((scratch / _DATA / artifacts.PREPARED).read_bytes())
    gguf_file = next((path.name for path in (scratch / _BASE).glob("*.gguf")), None)
    return Inputs(prepared, scratch / _DATA, scratch / _BASE, gguf_file)

"""The base model as files: what is fetched, in which order, and what is refused before.

What describes the model comes first, the weights behind. Pickled weights are never even downloaded.
"""

import contextlib
import json
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from finetune_api import artifacts, wording
from finetune_api.artifacts import FileEntry
from finetune_api.errors import ModelError
from finetune_api.kinds.finetunejob.spec import ModelSource
from finetune_trainer import signals
from finetune_trainer.storage import RemoteFile, Store

PICKLED_SUFFIXES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".h5", ".msgpack")
"""Formats that run code when they are loaded, or that only other frameworks read."""
FETCHED_SUFFIXES = (".safetensors", ".json", ".txt", ".model", ".jinja")
TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "tokenizer.model", "spiece.model")
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
"""Where transformers looks for weights, in this order."""
FETCHING = "the fetching of the inputs"
REMEDY_FOLDER = "upload the whole folder of the model, with weights in safetensors."
_MAX_INDEX_BYTES = 64 * 2**20
"""An index has some 100 bytes for each tensor; the largest models have 100,000 (a choice)."""
_FIRST_BYTES = 2**18
"""As many as the header of most shards has (a choice: one request instead of two)."""
_MAX_HEADER_BYTES = 8 + 100 * 10**6
"""What safetensors reads at the most."""


MAX_BYTES = {
    "tokenizer.json": 64 * 2**20,
    "vocab.json": 64 * 2**20,
    "vocab.txt": 64 * 2**20,
    "merges.txt": 64 * 2**20,
    "tokenizer.model": 64 * 2**20,
    "spiece.model": 64 * 2**20,
    "model.safetensors.index.json": 64 * 2**20,
}
"""Largest files that describe a model (a choice): the largest tokenizers published have 35 MB. JSON takes thirty times
its size in memory."""
MAX_OTHER_BYTES = 4 * 2**20
"""The same, of the configuration, the chat template and all others."""


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """What of the base model is fetched."""

    files: list[RemoteFile]
    gguf_file: str | None
    """Name of the one file, for a GGUF model."""
    warnings: list[str]


def list_model(store: Store, source: ModelSource) -> ModelFiles:
    """Decide what to fetch of the base model.

    Raises:
        ModelError: weights are missing, or only there in a format that isn't safe.
        FineTuneError: as the store answers.
    """
    found = store.list_files(artifacts.parse_s3_uri(source.uri))
    where = f"spec.model.uri ({source.uri})"
    if len(found) == 1 and source.uri.endswith(found[0].address.key):
        if not found[0].suffix_name.endswith(".gguf"):
            raise ModelError(
                f"{where} must be a folder of safetensors or one .gguf file; it is {found[0].name}", REMEDY_FOLDER
            )
        return ModelFiles(found, found[0].name, [])
    # Only the top level: folders below hold other formats (onnx, openvino) and earlier checkpoints.
    top = [file for file in found if "/" not in file.name]
    names = [file.name for file in top]
    pickled = [name for name in names if name.lower().endswith(PICKLED_SUFFIXES)]
    weights = [name for name in names if name.endswith(".safetensors")]
    if not weights:
        raise ModelError(
            f"{where} must hold weights in safetensors; {_describe_absence(names, pickled)}", REMEDY_FOLDER
        )
    if "config.json" not in names:
        kind = "an adapter, not a whole model" if "adapter_config.json" in names else "no config.json"
        raise ModelError(f"{where} must hold config.json beside its weights; it has {kind}", REMEDY_FOLDER)
    if not set(TOKENIZER_FILES) & set(names):
        raise ModelError(f"{where} must hold a tokenizer; none of {', '.join(TOKENIZER_FILES)} is there", REMEDY_FOLDER)
    if adapters := [name for name in names if name.startswith("adapter_")]:
        # transformers would put it on the base, unasked.
        raise ModelError(
            f"{where} must hold a base model alone; it also has an adapter ({', '.join(adapters)})",
            "merge the adapter and save the model into a folder of its own, or remove the adapter's files.",
        )
    warnings = [f"{where}: {', '.join(pickled)} are left out; only safetensors are read"] if pickled else []
    read = _find_read_weights(store, top, where)
    if others := [name for name in weights if name not in read]:
        # Mistral's folders hold the same weights a second time, under other names.
        warnings.append(f"{where}: {', '.join(others)} are left out; {WEIGHTS} or what {INDEX} lists is read")
    chosen = [file for file in select_files(found) if file.name not in others]
    _check_sizes(chosen, where)
    return ModelFiles(chosen, None, warnings)


def _find_read_weights(store: Store, top: Sequence[RemoteFile], where: str) -> set[str]:
    """Return the names of the weights that transformers reads: one file, or those that the index lists.

    Raises:
        ModelError: there is neither, or the index can't be read.
    """
    by_name = {file.name: file for file in top}
    if WEIGHTS in by_name:
        return {WEIGHTS}
    if INDEX not in by_name:
        raise ModelError(f"{where} must hold {WEIGHTS}, or shards and {INDEX}; it has neither", REMEDY_FOLDER)
    return set(parse_weight_map(store.read_bytes(by_name[INDEX].address, _MAX_INDEX_BYTES), where).values())


def parse_weight_map(content: bytes, where: str) -> dict[str, str]:
    """Read an index of shards: the file of each weight, by its name.

    Raises:
        ModelError: it is none.
    """
    try:
        return {str(name): str(file) for name, file in json.loads(content)["weight_map"].items()}
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{where}: {INDEX} must be a JSON object with a weight_map of names and files;"
            f" {type(error).__name__}: {wording.show_error(error)}",
            "upload the file again.",
        ) from error


def _check_sizes(files: Sequence[RemoteFile], where: str) -> None:
    for file in files:
        most = MAX_BYTES.get(file.name, MAX_OTHER_BYTES)
        if file.size > most and not file.name.endswith(".safetensors"):
            raise ModelError(
                f"{where}: {file.name} ({file.size} bytes) must have at most {most} bytes",
                "upload the file as the model's makers publish it, and remove files that don't belong to the model.",
            )


def select_files(found: Sequence[RemoteFile]) -> list[RemoteFile]:
    """Choose what to fetch of what was found: one GGUF file, or the top level of a folder without pickled weights."""
    if len(found) == 1:
        return list(found)
    return [file for file in found if "/" not in file.name and file.suffix_name.endswith(FETCHED_SUFFIXES)]


def _describe_absence(names: Sequence[str], pickled: Sequence[str]) -> str:
    if pickled:
        return f"it has only {', '.join(pickled)}, a format that can run code when it is read"
    ggufs = [name for name in names if name.endswith(".gguf")]
    if ggufs:
        return f"it has {', '.join(ggufs)}; give the file itself as spec.model.uri"
    return "it has none"


def check_pin(source: ModelSource, entries: Sequence[FileEntry], gguf_file: str | None) -> str:
    """Return the model's digest after comparing it with the one in the spec.

    A file's digest is its sha256, a folder's that of the list of sha256 and name over the files that are read.

    Raises:
        ModelError: the model isn't the one that was pinned.
    """
    digest = entries[0].sha256 if gguf_file else artifacts.compute_digest(list(entries))
    if source.sha256 and source.sha256 != digest:
        raise ModelError(
            f"spec.model.sha256 ({source.sha256}) must be the digest of {source.uri}, which is {digest}",
            "check where the model comes from before you change the digest.",
        )
    return digest


@dataclass(slots=True)
class PendingFiles:
    """Files of the base model: some are here, the rest arrives meanwhile."""

    _here: list[FileEntry]
    _coming: Future[list[FileEntry]]

    def wait(self) -> list[FileEntry]:
        """Wait until all have arrived; return size and sha256 of each.

        Raises:
            FineTuneError: as the store answers.
        """
        return [*self._here, *self._coming.result()]


@contextlib.contextmanager
def fetch_behind(store: Store, files: ModelFiles, folder: Path, weights_folder: Path) -> Iterator[PendingFiles]:
    """Fetch the base model while the block runs; configuration and headers are there when it begins.

    Whatever is wrong with them is so found before gigabytes are pulled. Where the block fails, the rest is given up.

    Args:
        store: where the model lies.
        files: of the model.
        folder: for all but the weights, of which it gets the headers: sparse files of their size.
        weights_folder: for the whole weights.

    Raises:
        FineTuneError: as the store answers.
    """
    weights = [file for file in files.files if file.name.endswith(".safetensors")]
    others = [file for file in files.files if file not in weights]
    here = store.fetch_files(others, folder, signals.build_progress(FETCHING))
    for file in weights:
        signals.check(FETCHING)
        _fetch_header(store, file, folder)
    is_given_up = threading.Event()

    def go_on(_num_bytes: int) -> None:
        signals.check(FETCHING)
        if is_given_up.is_set():
            raise _GivenUp

    with ThreadPoolExecutor(1, thread_name_prefix="weights") as pool:
        try:
            yield PendingFiles(here, pool.submit(store.fetch_files, weights, weights_folder, go_on))
        except BaseException:
            is_given_up.set()
            raise


class _GivenUp(Exception):  # noqa: N818 - nobody is told
    """Nobody waits for the weights any more."""


def _fetch_header(store: Store, file: RemoteFile, folder: Path) -> None:
    """Fetch the header of a safetensors file and nothing behind it.

    Its first 8 bytes are the header's length, little-endian (https://huggingface.co/docs/safetensors). What reads the
    header checks it against the file's size, so one that was cut short is noticed here.
    """
    content = store.read_range(file, 0, _FIRST_BYTES)
    length = min(8 + int.from_bytes(content[:8], "little"), _MAX_HEADER_BYTES)
    if length > len(content):
        content += store.read_range(file, len(content), length - len(content))
    store.lay_out(file, content, folder)

"""Before any work: can every address of the spec be read, can the output be written, and does the store fence writers?

All problems are reported together, each with its field. Nothing but one small object below the output is written, and
that is deleted again.
"""

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from finetune_api import artifacts
from finetune_api.artifacts import RunLayout, S3Address
from finetune_api.errors import AccessDenied, ConfigError, FineTuneError, ReferenceNotFound, StorageUnavailable
from finetune_api.kinds.finetunejob.spec import FineTuneJobSpec
from finetune_trainer import signals
from finetune_trainer.model import files as model_files
from finetune_trainer.model.files import ModelFiles
from finetune_trainer.storage import RemoteFile, Store


@dataclass(slots=True)
class Listing:
    """What stands behind the addresses of a spec."""

    model: ModelFiles
    data: dict[str, list[RemoteFile]] = field(default_factory=dict)
    """Files by split."""


def probe_addresses(store: Store, spec: FineTuneJobSpec, layout: RunLayout, attempt: int) -> Listing:
    """List and touch every input, and try the output.

    Raises:
        FineTuneError: of the class of the first problem a retry can't solve, else of the first; it names all problems.
    """
    listing = Listing(ModelFiles([], None, []))

    def read_model() -> None:
        listing.model = model_files.list_model(store, spec.model)
        _touch(store, listing.model.files)

    def read_data(split: str, uri: str) -> None:
        listing.data[split] = store.list_files(artifacts.parse_s3_uri(uri))
        _touch(store, listing.data[split])

    probes: list[tuple[str, Callable[[], None]]] = [("spec.model.uri", read_model)]
    probes += [(path, functools.partial(read_data, split, uri)) for split, path, uri in list_data_addresses(spec)]
    probes.append(("spec.output.uri", functools.partial(_try_output, store, layout, attempt)))
    problems = _collect_problems(probes)
    if problems:
        remedies = dict.fromkeys(problem.remedy for problem in problems)
        # A retry doesn't help as long as one problem is final.
        leading = next((problem for problem in problems if not isinstance(problem, StorageUnavailable)), problems[0])
        raise type(leading)("; ".join(problem.message for problem in problems), " ".join(remedies))
    return listing


def _collect_problems(probes: Iterable[tuple[str, Callable[[], None]]]) -> list[FineTuneError]:
    problems: list[FineTuneError] = []
    for path, probe in probes:
        signals.check(f"the look at {path}")
        try:
            probe()
        except FineTuneError as error:
            named = error.message if error.message.startswith("spec.") else f"{path}: {error.message}"
            problems.append(type(error)(named, error.remedy))
            if isinstance(error, StorageUnavailable):
                # The other addresses lie in the same store; each would take as long to fail.
                break
    return problems


def list_data_addresses(spec: FineTuneJobSpec) -> Iterator[tuple[str, str, str]]:
    """Yield split, path of the field and address of each data source."""
    for split in artifacts.SPLITS:
        file = getattr(spec.data[0], split)
        if file is not None:
            yield split, f"spec.data[0].{split}.uri", file.uri


def _touch(store: Store, files: list[RemoteFile]) -> None:
    """Read a byte: listing and reading are different permissions."""
    first = next((file for file in files if file.size), None)
    if first is not None:
        store.read_range(first, 0, 1)


def _try_output(store: Store, layout: RunLayout, attempt: int) -> None:
    address = layout.probe(attempt)
    content = layout.uid.encode()
    store.put_bytes(address, content)
    if store.read_bytes(address, 1024) != content:
        raise ConfigError(f"{address} must read back as it was written", "check the store.")
    if store.put_if_absent(address, content):
        # Nothing would keep a pod that was thought dead from overwriting what a later attempt has published.
        raise ConfigError(
            f"{address} must lie in a store that honours If-None-Match; this one replaced an object that was there",
            "use a store with conditional writes.",
        )
    _try_listing(store, layout, address)
    try:
        store.delete(address)
    except AccessDenied as error:
        raise AccessDenied(f"{error.message}, also to delete", error.remedy) from error


def _try_listing(store: Store, layout: RunLayout, written: S3Address) -> None:
    """List as the train stage will, and look for an object that isn't there, which it begins with.

    A store that denies listing answers such a look with "forbidden", not with "not found".
    """
    folder = S3Address(layout.run.bucket, f"{layout.run.key}/")
    try:
        listed = store.list_files(folder)
        with contextlib.suppress(ReferenceNotFound):
            store.read_bytes(layout.run.join("no-object"), 1024)
    except AccessDenied as error:
        raise AccessDenied(f"{error.message}, also to list", error.remedy) from error
    if written not in [file.address for file in listed]:
        raise ConfigError(f"{folder} must list an object once it is written", "check the store.")

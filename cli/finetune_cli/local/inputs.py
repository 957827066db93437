"""Where the addresses of a spec lie below a folder: `s3://bucket/key` is `<folder>/bucket/key`."""

import re
from collections.abc import Iterator
from pathlib import Path

from finetune_api import artifacts
from finetune_api.kinds.finetunejob.spec import FineTuneJobSpec
from finetune_api.validation import FieldError

_GLOB = re.compile(r"[*?\[]")


def find_path(folder: Path, uri: str) -> Path:
    """Return the place of an address; the pattern of addresses keeps it below the folder."""
    address = artifacts.parse_s3_uri(uri)
    return folder / address.bucket / address.key


def find_missing(folder: Path, spec: FineTuneJobSpec) -> list[FieldError]:
    """Return an error for each input that isn't there; of a pattern, the part before it is looked for."""
    return [
        FieldError(path, uri, f"must lie at {_find_fixed_part(find_path(folder, uri))}; put it there")
        for path, uri in _list_inputs(spec)
        if not _find_fixed_part(find_path(folder, uri)).exists()
    ]


def _find_fixed_part(path: Path) -> Path:
    parts = path.parts
    fixed = next((index for index, part in enumerate(parts) if _GLOB.search(part)), len(parts))
    return Path(*parts[:fixed])


def _list_inputs(spec: FineTuneJobSpec) -> Iterator[tuple[str, str]]:
    yield "spec.model.uri", spec.model.uri
    for index, dataset in enumerate(spec.data):
        for part, file in (("train", dataset.train), ("validation", dataset.validation), ("test", dataset.test)):
            if file is not None:
                yield f"spec.data[{index}].{part}.uri", file.uri

"""A run that takes over `current.json` from another one says whose it was, and never fails for it."""

from pathlib import Path

import pytest

from finetune_api.artifacts import CurrentRun, build_run_layout
from finetune_trainer.publishing.replaced import describe_replaced
from finetune_trainer.storage.folder import FolderStore

LAYOUT = build_run_layout("s3://runs/shared", "uid-2")


def build_current(uid: str, name: str = "first") -> bytes:
    manifest = {"manifest_uri": f"s3://runs/shared/runs/{uid}/manifest.json", "manifest_sha256": "0" * 64}
    current = CurrentRun(uid=uid, name=name, model_uri="s3://runs/shared/model/", **manifest)
    return current.model_dump_json().encode()


CASES = [
    pytest.param(None, "", id="nothing was published there"),
    pytest.param(build_current("uid-2"), "", id="an earlier attempt of the same run"),
    pytest.param(
        build_current("uid-1"),
        "s3://runs/shared/current.json named the run of first (uid-1) and names this one now; the other's files stay",
        id="another run",
    ),
    pytest.param(
        build_current("uid-1", "fir\nst"),
        's3://runs/shared/current.json named the run of "fir\\nst" (uid-1) and names this one now; the'
        " other's files stay",
        id="another run with a line break in its name",
    ),
    pytest.param(
        b"[]", "s3://runs/shared/current.json was no pointer to a run; it names this one now", id="something else"
    ),
    pytest.param(
        b" " * 2**17, "s3://runs/shared/current.json was no pointer to a run; it names this one now", id="a large file"
    ),
]


@pytest.mark.parametrize(("content", "want"), CASES)
def test_a_run_says_whose_pointer_it_replaces(tmp_path: Path, content: bytes | None, want: str) -> None:
    store = FolderStore(tmp_path)
    if content is not None:
        store.put_bytes(LAYOUT.current, content)
    assert describe_replaced(store, LAYOUT) == want

"""FineTuneJob objects for tests: a complete, valid one, and edits of it by path; and objects of any kind."""

import copy
from typing import Any

Manifest = dict[str, Any]
REMOVED = object()


def make_manifest(name: str = "movies", namespace: str = "default", **edits: Any) -> Manifest:
    """Return a valid FineTuneJob; `edits` maps dotted paths with `__` for dots to values (REMOVED takes one away)."""
    manifest: Manifest = {
        "apiVersion": "finetune.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "task": "SequenceClassification",
            "model": {"uri": "s3://models/minilm/"},
            "data": [{"name": "movies", "train": {"uri": "s3://datasets/movies/train.jsonl"}}],
            "output": {"uri": "s3://runs/movies"},
        },
    }
    for path, value in edits.items():
        manifest = edit_manifest(manifest, path.replace("__", "."), value)
    return manifest


def edit_manifest(manifest: Manifest, path: str, value: Any) -> Manifest:
    """Return a copy with the value at a path such as `spec.data.0.train.uri` set, or taken away by REMOVED."""
    result = copy.deepcopy(manifest)
    node: Any = result
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    for part in parents:
        node = node.setdefault(part, {}) if isinstance(part, str) else node[part]
    if value is REMOVED:
        del node[last]
    elif isinstance(node, list) and last == len(node):
        node.append(value)
    else:
        node[last] = value
    return result


def build_object(kind: tuple[str, str], name: str, namespace: str, **fields: Any) -> Manifest:
    """Return a manifest of a kind given as apiVersion and kind."""
    api_version, kind_name = kind
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": api_version, "kind": kind_name, "metadata": metadata, **fields}

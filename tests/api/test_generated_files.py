"""What is rendered from the code stands in the repository as it is rendered today."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from finetune_api import crd

ROOT = Path(__file__).parents[2]


def _render() -> dict[str, str]:
    specification = importlib.util.spec_from_file_location("render", ROOT / "scripts" / "render.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    files: dict[str, str] = module.render_files()
    return files


GENERATED = ["charts/finetune-operator/files/crd.yaml", "docs/models.md", "docs/performance.md", "docs/reference.md"]


def test_four_files_are_generated() -> None:
    assert sorted(_render()) == GENERATED


@pytest.mark.parametrize("path", GENERATED)
def test_the_committed_file_is_the_rendered_one(path: str) -> None:
    assert (ROOT / path).read_text() == _render()[path], "run `make crd` and commit the result"


def _walk(path: str, node: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    found = [(path, node)]
    for name, child in node.get("properties", {}).items():
        found += _walk(f"{path}.{name}", child)
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), dict):
            found += _walk(f"{path}[]", node[key])
    return found


def _nodes() -> list[tuple[str, dict[str, Any]]]:
    properties = crd.build_schema()["properties"]
    return [item for part in ("spec", "status") for item in _walk(part, properties[part])]


def _is_bounded(node: dict[str, Any]) -> bool:
    match node.get("type"):
        case "string":
            return "maxLength" in node or "enum" in node
        case "integer":
            return "minimum" in node
        case "array":
            return "maxItems" in node
        case "object":
            return "properties" in node or "maxProperties" in node
        case "boolean":
            return True
        case _:
            return bool(node.get("x-kubernetes-int-or-string")) and "maxLength" in node


def test_every_string_number_list_and_map_of_the_schema_is_bounded() -> None:
    nodes = _nodes()
    assert [path for path, node in nodes if not _is_bounded(node)] == []
    assert len(nodes) > 150


def test_every_field_of_the_schema_is_described() -> None:
    fields = [(path, node) for path, node in _nodes() if not path.endswith("[]") and "." in path]
    assert [path for path, node in fields if not node.get("description")] == []


def test_no_field_keeps_unknown_content() -> None:
    assert [path for path, node in _nodes() if "x-kubernetes-preserve-unknown-fields" in node] == []


def test_the_crd_is_small_enough_for_client_side_apply() -> None:
    """`kubectl apply` stores the object in an annotation, and annotations end at 256 KiB."""
    assert len(_render()["charts/finetune-operator/files/crd.yaml"]) < 200_000

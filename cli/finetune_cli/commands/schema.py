"""`finetune schema`: the JSON schema of FineTuneJob, for editors and other programs.

Made from the schema in the CustomResourceDefinition, so that an editor says what the API server will say. The dialect
of Kubernetes is turned into plain JSON schema: draft 2020-12, unknown fields refused, `exclusiveMinimum` a number.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from finetune_api import crd, group, names, validation
from finetune_cli import exit_codes

Schema = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_KUBERNETES_PREFIX = "x-kubernetes-"


def schema(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write. Absent: standard output.", show_default=False)
    ] = None,
) -> None:
    """Print the JSON schema of FineTuneJob; editors check and complete with it."""
    text = json.dumps(build_json_schema(), indent=2) + "\n"
    if output is None:
        typer.echo(text, nl=False)
        return
    try:
        output.write_text(text)
    except OSError as error:
        typer.echo(f"--output ({output}) must be a writable file; {error.strerror}", err=True)
        raise typer.Exit(exit_codes.UNCHECKED) from error


def build_json_schema() -> Schema:
    """Build the JSON schema of a whole FineTuneJob manifest."""
    job = _convert(crd.build_schema())
    properties = job["properties"] | {
        "apiVersion": {"const": group.API_VERSION},
        "kind": {"const": group.KIND},
        "metadata": _build_metadata_schema(),
    }
    return {
        "$schema": DIALECT,
        "title": group.KIND,
        **job,
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "properties": properties,
    }


def _build_metadata_schema() -> Schema:
    """Describe what matters of metadata; the API server knows many more fields."""
    name = {
        "type": "string",
        "description": "name of the FineTuneJob; its pods have longer ones.",
        "maxLength": names.MAX_JOB_NAME_LENGTH,
        "pattern": validation.NAME_PATTERN,
    }
    return {
        "type": "object",
        "anyOf": [{"required": ["name"]}, {"required": ["generateName"]}],
        "properties": {"name": name, "generateName": {"type": "string"}, "namespace": {"type": "string"}},
    }


def _convert(node: Schema) -> Schema:
    """Turn one node of the structural schema, and all below it, into plain JSON schema."""
    result = {key: value for key, value in node.items() if not key.startswith(_KUBERNETES_PREFIX)}
    if result.get("exclusiveMinimum") is True:
        result["exclusiveMinimum"] = result.pop("minimum")
    if result.get("format") == "int64":
        del result["format"]
    if node.get("x-kubernetes-list-type") == "set":
        result["uniqueItems"] = True
    if "properties" in node:
        result["properties"] = {name: _convert(child) for name, child in node["properties"].items()}
        result["additionalProperties"] = False
    elif isinstance(node.get("additionalProperties"), dict):
        result["additionalProperties"] = _convert(node["additionalProperties"])
    if "items" in node:
        result["items"] = _convert(node["items"])
    return result

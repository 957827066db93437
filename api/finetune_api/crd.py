"""Renders the CustomResourceDefinition from the pydantic models: `build_crd()` returns it, `make crd` writes it.

Kubernetes wants a structural schema (https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/
custom-resource-definitions/#specifying-a-structural-schema): no references, no null types, no `additionalProperties`
beside `properties`. What pydantic writes is brought into that form here. Pure: the same models give the same CRD.
"""

import re
from typing import Any

from finetune_api import crd_rules, group, names, validation
from finetune_api.kinds.finetunejob.spec import FineTuneJobSpec
from finetune_api.kinds.finetunejob.status import FineTuneJobStatus
from finetune_api.kinds.object_model import Model

Schema = dict[str, Any]

_PRINTER_COLUMNS = (
    ("Phase", "string", ".status.phase", 0),
    ("Task", "string", ".spec.task", 0),
    ("Method", "string", ".spec.method.kind", 0),
    ("Progress", "integer", ".status.progress.percent", 0),
    ("ETA", "string", ".status.progress.estimatedCompletionTime", 0),
    ("Attempts", "integer", ".status.attemptCount", 0),
    ("Model", "string", ".spec.model.uri", 1),
    ("Queue", "string", ".spec.placement.queueName", 1),
    ("Reason", "string", ".status.reason", 1),
    ("Metric", "string", ".status.metric", 1),
    ("Age", "date", ".metadata.creationTimestamp", 0),
)
_COPIED_KEYS = (
    "type",
    "enum",
    "pattern",
    "format",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "maxProperties",
    "minimum",
    "maximum",
    "required",
    "description",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-int-or-string",
    "x-kubernetes-validations",
)


_UNICODE_ESCAPE = re.compile(r"\\u([0-9a-f]{4})")
"""Go's expressions write a character by its number as `x{00a0}`: https://github.com/google/re2/wiki/Syntax"""


def build_crd() -> Schema:
    """Build the whole CustomResourceDefinition.

    A pattern becomes a CEL rule with the words of `validation.PATTERN_RULES`: what the API server itself says about a
    pattern, `should match '^…$'`, helps nobody.
    """
    schema = build_schema()
    _put_into_words(schema)
    columns = [
        {"name": name, "type": kind, "jsonPath": path} | ({"priority": priority} if priority else {})
        for name, kind, path, priority in _PRINTER_COLUMNS
    ]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{group.PLURAL}.{group.GROUP}"},
        "spec": {
            "group": group.GROUP,
            "names": {
                "kind": group.KIND,
                "listKind": f"{group.KIND}List",
                "plural": group.PLURAL,
                "singular": group.SINGULAR,
                "shortNames": [group.SHORT_NAME],
                "categories": list(group.CATEGORIES),
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": group.VERSION,
                    "served": True,
                    "storage": True,
                    "additionalPrinterColumns": columns,
                    "selectableFields": [{"jsonPath": ".status.phase"}],
                    "subresources": {"status": {}},
                    "schema": {"openAPIV3Schema": schema},
                }
            ],
        },
    }


def build_schema() -> Schema:
    """Build the structural schema of a FineTuneJob, with defaults and CEL rules; patterns still as patterns."""
    spec = _build_object_schema(FineTuneJobSpec)
    crd_rules.place_rules(spec)
    status = _build_object_schema(FineTuneJobStatus)
    _drop_defaults(status)
    status["default"] = {"observedGeneration": -1}
    status["x-kubernetes-validations"] = [
        {
            "rule": "!has(oldSelf.phase) || !(oldSelf.phase in ['Succeeded', 'Failed']) "
            "|| (has(self.phase) && self.phase == oldSelf.phase)",
            "message": "must stay as it is: a finished run never changes its phase",
            "reason": "FieldValueForbidden",
            "fieldPath": ".phase",
        }
    ]
    return {
        "type": "object",
        "description": "A FineTuneJob fine-tunes one language model once.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {
                "type": "object",
                "properties": {
                    "name": {
                        "type": "string",
                        "maxLength": names.MAX_JOB_NAME_LENGTH,
                        "pattern": validation.NAME_PATTERN,
                    }
                },
            },
            "spec": spec,
            "status": status,
        },
    }


def _build_object_schema(model: type[Model]) -> Schema:
    schema = model.model_json_schema()
    return _convert(schema, schema.get("$defs", {}))


def _convert(node: Schema, definitions: Schema) -> Schema:
    """Turn one node of pydantic's JSON schema into a structural one; null alternatives and titles fall away."""
    node = _resolve(node, definitions)
    result: Schema = {key: node[key] for key in _COPIED_KEYS if key in node}
    if "description" in result:
        result["description"] = " ".join(result["description"].split())
    if "exclusiveMinimum" in node:
        result |= {"minimum": node["exclusiveMinimum"], "exclusiveMinimum": True}
    if node.get("x-kubernetes-int-or-string"):
        result["anyOf"] = node["anyOf"]
    if "properties" in node:
        result["properties"] = {key: _convert(value, definitions) for key, value in node["properties"].items()}
    elif isinstance(node.get("additionalProperties"), dict):
        result["additionalProperties"] = _convert(node["additionalProperties"], definitions)
    if "items" in node:
        result["items"] = _convert(node["items"], definitions)
    if result.get("type") == "integer":
        result["format"] = "int64"
    if node.get("default") is not None:
        # In full and not as {}: the API server evaluates the CEL rules on a default before filling what lies below it.
        result["default"] = _drop_nulls(node["default"])
    return result


def _resolve(node: Schema, definitions: Schema) -> Schema:
    """Follow references and drop the null of optional fields; what stands beside them wins."""
    beside = {key: value for key, value in node.items() if key not in ("$ref", "anyOf")}
    if "$ref" in node:
        return _resolve(definitions[node["$ref"].rsplit("/", 1)[1]], definitions) | beside
    if "anyOf" in node and not node.get("x-kubernetes-int-or-string"):
        [alternative] = [item for item in node["anyOf"] if item.get("type") != "null"]
        return _resolve(alternative, definitions) | beside
    return node


def _drop_nulls(default: object) -> object:
    """Leave out what is absent: null is no value of a structural schema."""
    if isinstance(default, dict):
        return {key: _drop_nulls(value) for key, value in default.items() if value is not None}
    return default


def _put_into_words(node: Schema) -> None:
    """Turn every pattern below a node into a rule with words, in place; rules already there come after it."""
    pattern = node.pop("pattern", None) if node.get("pattern") in validation.PATTERN_RULES else None
    if pattern is not None:
        matches = f"self.matches(r'{pattern}')"
        # A number where a quantity may stand is bounded below; the form of a text binds texts only.
        rule = f"type(self) == string ? {matches} : self >= 0" if "x-kubernetes-int-or-string" in node else matches
        words = {"rule": rule, "message": validation.PATTERN_RULES[pattern], "reason": "FieldValueInvalid"}
        node["x-kubernetes-validations"] = [words, *node.get("x-kubernetes-validations", [])]
    for rule in node.get("x-kubernetes-validations", []):
        rule["rule"] = _UNICODE_ESCAPE.sub(r"\\x{\1}", rule["rule"])
    below = [*node.get("properties", {}).values(), node.get("items"), node.get("additionalProperties")]
    for child in below:
        if isinstance(child, dict):
            _put_into_words(child)


def _drop_defaults(node: Schema) -> None:
    """Drop every default below a node, in place: a status shows what was observed, nothing else."""
    node.pop("default", None)
    below = [*node.get("properties", {}).values(), node.get("items"), node.get("additionalProperties")]
    for child in below:
        if isinstance(child, dict):
            _drop_defaults(child)

"""Puts the rules across fields into the CRD's schema, each where it costs the API server least.

The API server evaluates all of them at every write, also of a status, and each step of an expression into an object
takes as long as that object has fields. So a rule lies at the innermost object or list that holds all it reads: same
field to blame, same words. Pure.
"""

import re
from collections.abc import Sequence
from typing import Any

from finetune_api import rules

Schema = dict[str, Any]
VALIDATIONS = "x-kubernetes-validations"
_REFERENCE = re.compile(r"(\bhas\()?\bself((?:\.\w+)+)")
_UNCHANGED = {
    "message": "must not change: it defines the run; create a new FineTuneJob instead",
    "reason": "FieldValueForbidden",
}


def place_rules(spec: Schema) -> None:
    """Put all rules of a FineTuneJob into the schema of its spec, in place."""
    for rule in rules.RULES:
        words = {"message": rule.message, "reason": rule.reason}
        _place(spec, rule.cel, rule.path, words)
    for field in rules.IMMUTABLE_FIELDS:
        _keep(spec, field)
    policy = spec["properties"]["runPolicy"]
    upward = {
        "rule": "self >= oldSelf",
        "message": "must not be lowered: it can only be raised while the job exists",
        "reason": "FieldValueForbidden",
    }
    _add(policy["properties"]["activeDeadlineSeconds"], upward)
    for field in rules.IMMUTABLE_RUN_POLICY_FIELDS:
        _keep(policy, field)


def _place(spec: Schema, cel: str, path: str, words: Schema) -> None:
    """Add a rule on the spec at the innermost object or list that holds the field to blame and all fields it reads."""
    read = [found[2][1:].split(".")[: -1 if found[1] else None] for found in _REFERENCE.finditer(cel)]
    node, place = _descend(spec, _find_common_start([path.split("."), *read]))
    prefix = "".join(rf"\.{name}" for name in place)
    blamed = path.split(".")[len(place) :]
    rule = {"rule": re.sub(rf"\bself{prefix}\b", "self", cel), **words}
    _add(node, rule | {"fieldPath": "".join(f".{name}" for name in blamed)} if blamed else rule)


def _find_common_start(paths: Sequence[Sequence[str]]) -> list[str]:
    levels = (set(names) for names in zip(*paths, strict=False))
    common: list[str] = []
    for names in levels:
        if len(names) > 1:
            break
        common += names
    return common


def _descend(node: Schema, path: Sequence[str]) -> tuple[Schema, list[str]]:
    """Follow a path as far as it leads to objects with fields and to lists; return the last and the path to it."""
    place: list[str] = []
    for name in path:
        below = node.get("properties", {}).get(name, {})
        if "properties" not in below and "items" not in below:
            break
        node = below
        place.append(name)
    return node, place


def _keep(node: Schema, field: str) -> None:
    """Add the rule that a field never changes; one that is always there carries it itself."""
    below = node["properties"][field]
    if "default" in below or field in node.get("required", ()):
        _add(below, {"rule": "self == oldSelf", **_UNCHANGED})
        return
    same = f"has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})"
    _add(node, {"rule": same, **_UNCHANGED, "fieldPath": f".{field}"})


def _add(node: Schema, rule: Schema) -> None:
    node[VALIDATIONS] = [*node.get(VALIDATIONS, []), rule]

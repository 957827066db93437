"""Every rule is in the CRD once, blames the field it names, and lies where it costs the API server least."""

from collections.abc import Iterator
from typing import Any

import pytest

from finetune_api import crd, rules

UNCHANGED = "must not change: it defines the run; create a new FineTuneJob instead"


def _walk(node: dict[str, Any], place: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each rule with the path of what it lies at."""
    for rule in node.get("x-kubernetes-validations", []):
        yield place, rule
    for name, below in node.get("properties", {}).items():
        yield from _walk(below, f"{place}.{name}")


def _list_rules() -> list[tuple[str, dict[str, Any]]]:
    return list(_walk(crd.build_schema()["properties"]["spec"]))


def test_each_rule_blames_its_field_once() -> None:
    found = sorted((place + rule.get("fieldPath", ""), rule["message"]) for place, rule in _list_rules())
    kept = [*rules.IMMUTABLE_FIELDS, *(f"runPolicy.{name}" for name in rules.IMMUTABLE_RUN_POLICY_FIELDS)]
    wanted = [(f".{rule.path}", rule.message) for rule in rules.RULES] + [(f".{field}", UNCHANGED) for field in kept]
    own = {".runPolicy.activeDeadlineSeconds", *(path for path, _ in found if path.endswith("uri"))}
    assert [item for item in found if item in wanted or item[0] not in own] == sorted(wanted)


@pytest.mark.parametrize(
    ("place", "blamed", "cel"),
    [
        ("", ".training.batchSize", "self.training.batchSize >= self.resources.gpus"),
        (".output", ".merge", "!self.merge"),
        (".method", ".quantization", "self.quantization == 'None' || self.kind == 'LoRA'"),
        (".method", ".preference", "!has(self.preference)"),
        (".training", ".maxSteps", "!(has(self.epochs) && has(self.maxSteps))"),
        (".data", "", "size(self) <= 1"),
        (".method.lora.targetModules", "", "size(self) == 1 || !('all-linear' in self)"),
        (".trainer", "", "self == oldSelf"),
    ],
)
def test_a_rule_lies_at_the_innermost_object_or_list_that_holds_all_it_reads(place: str, blamed: str, cel: str) -> None:
    assert (place, blamed, cel) in [(where, rule.get("fieldPath", ""), rule["rule"]) for where, rule in _list_rules()]

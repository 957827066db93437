"""values.yaml, its schema and its documentation: every value does something, is checked, and is explained."""

import json
import re
from collections.abc import Iterator
from typing import Any

import helm_python
import pytest
import yaml
from chart_rendering import CHART, MONITORS, merge, render_texts

Path = tuple[str, ...]

OTHER_VALUES: dict[str, Any] = {
    "image.repository": "r/other",
    "image.tag": "other",
    "image.digest": "sha256:" + "f" * 64,
    "imagePullSecrets": [{"name": "other"}],
    "trainer.image": "r/other:1",
    "allowedImages": ["r/other:*"],
    "allowedPriorityClasses": ["other"],
    "allowedRuntimeClasses": ["other"],
    "allowedServiceAccounts": ["other"],
    "allowedSecrets": ["other"],
    "allowedEndpoints": ["other.internal"],
    "allowedEnvironment": ["OTHER_*"],
    "insecureEndpoints": ["other.internal"],
    "podMetadata.labels": ["other"],
    "podMetadata.annotations": ["example.com/*"],
    "admissionPolicy.enabled": False,
    "watch.namespaces": ["other"],
    "crds.install": False,
    "crds.keep": False,
    "userRoles.create": False,
    "prepare.cpu": "2",
    "prepare.memory": "8Gi",
    "prepare.deadlineSeconds": 60,
    "kueue.queuePrepareJobs": True,
    "reconcile.workers": 1,
    "reconcile.resyncSeconds": 60,
    "reconcile.progressSeconds": 60,
    "reconcile.unschedulableGraceSeconds": 60,
    "logging.level": "DEBUG",
    "logging.format": "text",
    "metrics.tokenSecret.name": "other",
    "metrics.tokenSecret.key": "other",
    "metrics.serviceMonitor.enabled": False,
    "metrics.serviceMonitor.labels": {"a": "b"},
    "metrics.serviceMonitor.interval": "1m",
    "metrics.podMonitor.enabled": False,
    "metrics.podMonitor.labels": {"a": "b"},
    "metrics.podMonitor.interval": "1m",
    "networkPolicy.dnsPorts": [1053],
    "networkPolicy.operator.enabled": False,
    "networkPolicy.operator.metricsFrom": [{"podSelector": {}}],
    "networkPolicy.operator.apiServerPorts": [8443],
    "networkPolicy.operator.apiServerCIDRs": ["10.0.0.1/32", "fd00::1/128"],
    "networkPolicy.trainer.enabled": False,
    "networkPolicy.trainer.namespaces": ["other"],
    "networkPolicy.trainer.metricsFrom": [{"podSelector": {}}],
    "networkPolicy.trainer.storePeers": [{"ipBlock": {"cidr": "10.0.0.0/8"}}],
    "networkPolicy.trainer.blockedCIDRs": ["10.0.0.0/8"],
    "networkPolicy.trainer.blockedIPv6CIDRs": ["fd00::/8"],
    "podDisruptionBudget.enabled": False,
    "podDisruptionBudget.maxUnavailable": 0,
    "serviceAccount.create": False,
    "serviceAccount.name": "other",
    "serviceAccount.annotations": {"a": "b"},
    "resources.requests.cpu": "60m",
    "resources.requests.memory": "129Mi",
    "resources.limits.cpu": "2",
    "resources.limits.memory": "513Mi",
    "podAnnotations": {"a": "b"},
    "nodeSelector": {"a": "b"},
    "tolerations": [{"operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "priorityClassName": "other",
    "extraEnv": [{"name": "A", "value": "b"}],
    "nameOverride": "other",
    "fullnameOverride": "other",
}
"""Another value for every one in values.yaml; the render with it must differ from the one without."""

NUM_VALUES = 66
OPEN_OBJECTS = {
    "global",
    "affinity.nodeAffinity",
    "affinity.podAffinity",
    "affinity.podAntiAffinity",
}
"""Objects whose fields Helm or Kubernetes defines."""

WRONG_VALUES: dict[str, dict[str, Any]] = {
    "an unknown value": {"replicas": 2},
    "an unknown value below": {"image": {"pullPolicy": "Always"}},
    "an unknown value deep down": {"metrics": {"podMonitor": {"enable": True}}},
    "a digest without its algorithm": {"image": {"digest": "a" * 64}},
    "a switch as text": {"crds": {"keep": "false"}},
    "an unknown log level": {"logging": {"level": "info"}},
    "no workers": {"reconcile": {"workers": 0}},
    "half a second": {"reconcile": {"resyncSeconds": 0.5}},
    "a namespace with a comma": {"watch": {"namespaces": ["a,b"]}},
    "a namespace twice": {"watch": {"namespaces": ["a", "a"]}},
    "an image pattern with a comma": {"allowedImages": ["a,b"]},
    "an image pattern that would be an expression": {"allowedImages": ["registry/(a|b)"]},
    "a name pattern with a slash": {"allowedSecrets": ["team/a"]},
    "a class with capitals": {"allowedPriorityClasses": ["High"]},
    "a label with its value": {"podMetadata": {"labels": ["team=a"]}},
    "an annotation with two slashes": {"podMetadata": {"annotations": ["a/b/c"]}},
    "a variable with its value": {"allowedEnvironment": ["A=b"]},
    "a host pattern with a port": {"allowedEndpoints": ["minio:9000"]},
    "a host pattern with capitals": {"allowedEndpoints": ["S3.example.com"]},
    "an endpoint with its scheme": {"insecureEndpoints": ["http://minio"]},
    "memory that is no quantity": {"prepare": {"memory": "4 GB"}},
    "a variable of the chart's own": {"extraEnv": [{"name": "FINETUNE_WORKERS", "value": "1"}]},
    "a variable with an unknown source": {"extraEnv": [{"name": "A", "valueFrom": {"file": "x"}}]},
    "annotations that are no text": {"podAnnotations": {"a": 1}},
    "a budget of two pods": {"podDisruptionBudget": {"maxUnavailable": 2}},
    "a budget in percent": {"podDisruptionBudget": {"maxUnavailable": "50%"}},
    "a peer that is nobody": {"networkPolicy": {"operator": {"metricsFrom": [{}]}}},
    "a peer with an unknown field": {"networkPolicy": {"trainer": {"storePeers": [{"cidr": "10.0.0.0/8"}]}}},
    "no port of the API server": {"networkPolicy": {"operator": {"apiServerPorts": []}}},
    "a network without its size": {"networkPolicy": {"trainer": {"blockedCIDRs": ["169.254.0.0"]}}},
    "a duration without a unit": {"metrics": {"serviceMonitor": {"interval": 30}}},
}


def _read_values() -> dict[str, Any]:
    return dict(yaml.safe_load((CHART / "values.yaml").read_text()))


def _read_schema() -> dict[str, Any]:
    return dict(json.loads((CHART / "values.schema.json").read_text()))


def _find_leaves(node: dict[str, Any], path: Path = ()) -> Iterator[str]:
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield from _find_leaves(value, (*path, key))
        else:
            yield ".".join((*path, key))


def _build(path: str, value: Any) -> dict[str, Any]:
    for key in reversed(path.split(".")):
        value = {key: value}
    return dict(value)


def test_the_table_of_other_values_is_complete() -> None:
    leaves = list(_find_leaves(_read_values()))
    assert sorted(leaves) == sorted(OTHER_VALUES)
    assert len(leaves) == NUM_VALUES


@pytest.mark.parametrize("path", OTHER_VALUES)
def test_every_value_changes_what_is_rendered(path: str) -> None:
    everything = merge(MONITORS, {"watch": {"namespaces": ["team-a"]}}, {"metrics": {"tokenSecret": {"name": "token"}}})
    assert render_texts(everything, _build(path, OTHER_VALUES[path])) != render_texts(everything)


def test_templates_use_no_value_that_values_yaml_does_not_have() -> None:
    used: set[str] = set()
    templates = sorted((CHART / "templates").rglob("*.*"))
    for template in templates:
        used |= set(re.findall(r"\.Values\.([A-Za-z.]+)", template.read_text()))
    known = set(_find_leaves(_read_values()))
    assert {path for path in used if not any(f"{leaf}.".startswith(f"{path}.") for leaf in known)} == set()
    assert (len(templates), len(used)) == (12, 55)


def _find_objects(node: dict[str, Any], path: Path = ()) -> Iterator[tuple[str, dict[str, Any]]]:
    if node.get("type") == "object":
        yield ".".join(path), node
    for key, child in node.get("properties", {}).items():
        yield from _find_objects(child, (*path, key))
    if isinstance(node.get("items"), dict):
        yield from _find_objects(node["items"], (*path, "[]"))


def test_the_schema_knows_exactly_the_values_of_values_yaml() -> None:
    properties = _read_schema()["properties"]
    assert set(properties) - {"global"} == set(_read_values())
    for key, value in _read_values().items():
        if isinstance(value, dict) and value and "additionalProperties" not in value:
            assert set(properties[key]["properties"]) == set(value)


def test_every_object_of_the_schema_is_closed_or_a_map_of_one_type() -> None:
    objects = dict(_find_objects(_read_schema()))
    open_objects = {path for path, node in objects.items() if "additionalProperties" not in node}
    closed = [path for path, node in objects.items() if node.get("additionalProperties") is False]
    assert open_objects == OPEN_OBJECTS
    assert (len(objects), len(closed)) == (42, 31)


@pytest.mark.parametrize("name", WRONG_VALUES)
def test_a_wrong_value_is_refused(name: str) -> None:
    with pytest.raises(helm_python.HelmError, match=r"values don't meet the specifications of the schema"):
        render_texts(WRONG_VALUES[name])


@pytest.mark.parametrize(
    ("missing", "want"),
    [
        ({"image": {"repository": ""}}, "image.repository must name the operator image; set for instance --set"),
        ({"trainer": {"image": ""}}, "trainer.image must name the trainer image; set for instance --set"),
    ],
    ids=["no operator image", "no trainer image"],
)
def test_an_image_that_is_not_named_is_asked_for(missing: dict[str, Any], want: str) -> None:
    with pytest.raises(helm_python.HelmRenderError, match=want):
        render_texts(missing)


def test_the_chart_can_be_a_dependency_of_another() -> None:
    assert render_texts({"global": {"imageRegistry": "x"}}) == render_texts()


def test_the_readme_lists_every_value_with_its_default() -> None:
    rows = re.findall(r"^\| `([^`]+)` \| `(.*?)` \|", (CHART / "README.md").read_text(), re.MULTILINE)
    values = _read_values()
    want = {path: _read(values, path) for path in _find_leaves(values)}
    assert {path: json.loads(default) for path, default in rows} == want
    assert len(rows) == NUM_VALUES


def _read(values: dict[str, Any], path: str) -> Any:
    node: Any = values
    for key in path.split("."):
        node = node[key]
    return node


def test_merging_is_what_helm_does() -> None:
    layers = {"image": {"tag": "a"}}, {"image": {"digest": "b"}, "extraEnv": []}
    assert merge(*layers) == {"image": {"tag": "a", "digest": "b"}, "extraEnv": []}

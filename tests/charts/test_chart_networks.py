"""What the chart lets through to pods and from them, and what may interrupt the operator."""

from pathlib import Path
from typing import Any

import chart_rendering
import helm_python
import pytest
from chart_rendering import MONITORS, NARROW_NETWORKS, PROMETHEUS, find, render

from finetune_api import group, run

DNS = {"ports": [{"port": port, "protocol": protocol} for port in (53, 5353) for protocol in ("UDP", "TCP")]}
ANYWHERE = [
    {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16", "100.100.100.200/32", "168.63.129.16/32"]}},
    {"ipBlock": {"cidr": "::/0", "except": ["fe80::/10", "fd00:ec2::/32"]}},
    {"namespaceSelector": {}},
]


METRICS = [{"port": "metrics", "protocol": "TCP"}]
PROGRESS = [{"port": run.METRICS_PORT, "protocol": "TCP"}]
TRAINERS = {"matchExpressions": [{"key": group.LABEL_JOB, "operator": "Exists"}]}


def _network_policies(*values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found = find(render(*values), "NetworkPolicy")
    return {f"{item['metadata']['namespace']}/{item['metadata']['name']}": item["spec"] for item in found}


def test_the_operator_reaches_dns_the_api_server_and_trainers_and_is_reached_by_nobody() -> None:
    [deployment] = find(render(), "Deployment")
    api_server = {"ports": [{"port": port, "protocol": "TCP"} for port in (443, 6443)]}
    assert _network_policies() == {
        "finetune-system/tuning-finetune-operator": {
            "podSelector": deployment["spec"]["selector"],
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [],
            "egress": [
                DNS,
                api_server,
                {"to": [{"namespaceSelector": {}, "podSelector": TRAINERS}], "ports": PROGRESS},
            ],
        }
    }


def test_the_operator_reads_the_progress_of_the_namespaces_it_watches() -> None:
    policies = _network_policies({"watch": {"namespaces": ["team-a", "team-b"]}})
    [rule] = policies["finetune-system/tuning-finetune-operator"]["egress"][2:]
    watched = {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["team-a", "team-b"]}
    peer = {"podSelector": TRAINERS, "namespaceSelector": {"matchExpressions": [watched]}}
    assert rule == {"to": [peer], "ports": PROGRESS}


def _build_operator_peer() -> dict[str, Any]:
    [deployment] = find(render(), "Deployment")
    home = {"matchLabels": {"kubernetes.io/metadata.name": "finetune-system"}}
    return {"namespaceSelector": home, "podSelector": deployment["spec"]["selector"]}


def test_trainers_reach_dns_and_the_store_but_no_metadata_service() -> None:
    policies = _network_policies({"watch": {"namespaces": ["team-a", "team-b"]}})
    assert set(policies) == {"finetune-system/tuning-finetune-operator"} | {
        f"{name}/tuning-finetune-operator-trainers" for name in ("team-a", "team-b")
    }
    assert policies["team-b/tuning-finetune-operator-trainers"] == {
        "podSelector": TRAINERS,
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [_build_operator_peer()], "ports": METRICS}],
        "egress": [DNS, {"to": ANYWHERE, "ports": [{"protocol": "TCP"}]}],
    }


def test_networks_can_be_narrowed_to_the_addresses_that_are_needed() -> None:
    policies = _network_policies({"networkPolicy": NARROW_NETWORKS})
    operator, trainers = policies.values()
    assert operator["ingress"] == [{"from": PROMETHEUS, "ports": METRICS}]
    assert trainers["ingress"] == [{"from": [_build_operator_peer()], "ports": METRICS}]
    [_, trainers] = _network_policies(
        {"networkPolicy": {"trainer": NARROW_NETWORKS["trainer"] | {"metricsFrom": PROMETHEUS}}}
    ).values()
    assert trainers["ingress"] == [{"from": [_build_operator_peer(), *PROMETHEUS], "ports": METRICS}]
    assert operator["egress"][1]["to"] == [{"ipBlock": {"cidr": "10.0.0.1/32"}}]
    assert trainers["egress"][1]["to"] == [{"ipBlock": {"cidr": "10.1.0.0/16"}}]
    assert list(policies)[1] == "team-a/tuning-finetune-operator-trainers"


def test_trainers_of_a_whole_cluster_have_no_policy_and_the_notes_say_so() -> None:
    assert len(_network_policies()) == 1
    notes = chart_rendering.render_texts()["finetune-operator/templates/NOTES.txt"]
    assert "No NetworkPolicy holds trainer pods" in notes
    for values in ({"watch": {"namespaces": ["a"]}}, {"networkPolicy": {"trainer": {"enabled": False}}}):
        assert "NetworkPolicy" not in chart_rendering.render_texts(values)["finetune-operator/templates/NOTES.txt"]


@pytest.mark.parametrize(
    ("monitor", "pods"),
    [("serviceMonitor", "operator"), ("podMonitor", "trainer")],
)
def test_a_monitor_that_no_policy_lets_in_is_refused_with_both_ways_out(monitor: str, pods: str) -> None:
    values: dict[str, Any] = {"metrics": {monitor: {"enabled": True}}, "watch": {"namespaces": ["team-a"]}}
    field = f"networkPolicy.{pods}"
    want = (
        f"{field}.metricsFrom must name the pods of Prometheus where metrics.{monitor} is enabled; set it, or {field}"
    )
    with pytest.raises(helm_python.HelmRenderError, match=f"{want}.enabled=false"):
        render(values)
    for way_out in ({"metricsFrom": PROMETHEUS}, {"enabled": False}):
        assert render(values, {"networkPolicy": {pods: way_out}})


def test_a_token_is_mounted_for_the_operator_and_named_to_prometheus() -> None:
    objects = render(MONITORS, {"metrics": {"tokenSecret": {"name": "scraping", "key": "bearer"}}})
    [deployment] = find(objects, "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    [container] = pod["containers"]
    folder = Path(next(item["value"] for item in container["env"] if item["name"] == "FINETUNE_METRICS_TOKEN_FILE"))
    assert container["volumeMounts"][1] == {
        "name": "metrics-token",
        "mountPath": str(folder.parent),
        "readOnly": True,
    }
    assert pod["volumes"][1] == {
        "name": "metrics-token",
        "secret": {"secretName": "scraping", "items": [{"key": "bearer", "path": folder.name}]},
    }
    [monitor] = find(objects, "ServiceMonitor")
    credentials = {"type": "Bearer", "credentials": {"name": "scraping", "key": "bearer"}}
    assert monitor["spec"]["endpoints"][0]["authorization"] == credentials


def test_a_drain_of_the_node_is_never_held_up_unless_somebody_asks_for_it() -> None:
    [deployment] = find(render(), "Deployment")
    [budget] = find(render(), "PodDisruptionBudget")
    assert budget["spec"] == {
        "maxUnavailable": 1,
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
        "selector": deployment["spec"]["selector"],
    }
    [budget] = find(render({"podDisruptionBudget": {"maxUnavailable": 0}}), "PodDisruptionBudget")
    assert budget["spec"]["maxUnavailable"] == 0

"""What the chart renders: valid for every Kubernetes it supports, restricted, and the same words as the code."""

import json
import tomllib
from pathlib import Path
from typing import Any

import chart_rendering
import helm_python
import kubernetes_validate
import pytest
import yaml
from chart_rendering import CHART, MONITORS, NARROW_NETWORKS, REQUIRED, Object, find, identify, merge, render

from finetune_api import crd, group, run, validation
from finetune_operator import settings
from finetune_operator.jobs.kind import RESOURCE
from finetune_operator.jobs.policies import admission
from finetune_operator.runtime import access

GOLDEN = Path(__file__).parent / "golden"
MINORS = ("1.31", "1.32", "1.33", "1.34", "1.35", "1.36", "1.37")
WITHOUT_SCHEMA = {"ServiceMonitor", "PodMonitor"}
"""Kinds of the Prometheus Operator; their whole objects are compared below instead."""

MATRIX: dict[str, dict[str, Any]] = {
    "the defaults": {},
    "two namespaces": {"watch": {"namespaces": ["team-a", "team-b"]}},
    "no policies": {
        "admissionPolicy": {"enabled": False},
        "networkPolicy": {"operator": {"enabled": False}, "trainer": {"enabled": False}},
        "podDisruptionBudget": {"enabled": False},
    },
    "narrow networks": {"networkPolicy": NARROW_NETWORKS},
    "an image by digest": {"image": {"digest": "sha256:" + "0" * 64}, "trainer": {"image": f"r/t@sha256:{'1' * 64}"}},
    "no CRD": {"crds": {"install": False}},
    "a CRD that goes": {"crds": {"keep": False}},
    "monitors": MONITORS,
    "monitors of one namespace": merge(MONITORS, {"watch": {"namespaces": ["team-a"]}}),
    "an account from outside": {"serviceAccount": {"create": False, "name": "tuner"}, "userRoles": {"create": False}},
    "the default account": {"serviceAccount": {"create": False}},
    "everything of a pod": {
        "imagePullSecrets": [{"name": "registry"}],
        "podAnnotations": {"example.com/a": "b"},
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"key": "control-plane", "operator": "Exists", "effect": "NoSchedule"}],
        "affinity": {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Exists"}]}]
                }
            }
        },
        "priorityClassName": "system-cluster-critical",
        "extraEnv": [
            {"name": "HTTPS_PROXY", "value": "http://proxy:3128"},
            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        ],
        "serviceAccount": {"annotations": {"example.com/a": "b"}},
        "resources": {"limits": {"cpu": 2, "memory": "1Gi"}},
    },
    "nothing that a job may name": {"insecureEndpoints": [], "allowedSecrets": [], "allowedEndpoints": []},
}


def test_lint_finds_nothing_to_warn_about() -> None:
    report = helm_python.lint(CHART, REQUIRED, strict=True)
    assert report == {
        "total_charts_linted": 1,
        "messages": [{"severity": 1, "path": "Chart.yaml", "error": "icon is recommended"}],
        "errors": [],
    }


def test_every_supported_minor_has_schemas() -> None:
    assert set(MINORS) <= {
        kubernetes_validate.utils.major_minor(item) for item in kubernetes_validate.utils.all_versions()
    }


@pytest.fixture(scope="module")
def native() -> list[Object]:
    """The different objects of the whole matrix whose schemas Kubernetes has."""
    different = {json.dumps(item, sort_keys=True) for values in MATRIX.values() for item in render(values)}
    return [item for item in map(json.loads, sorted(different)) if item["kind"] not in WITHOUT_SCHEMA]


@pytest.mark.parametrize("minor", MINORS)
def test_every_object_of_the_matrix_is_valid_for_the_minor(minor: str, native: list[Object]) -> None:
    for item in native:
        assert kubernetes_validate.validate(item, minor, strict=True) == minor
    assert {item["kind"] for item in native} == {
        "ClusterRole",
        "ClusterRoleBinding",
        "ConfigMap",
        "CustomResourceDefinition",
        "Deployment",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "Role",
        "RoleBinding",
        "Service",
        "ServiceAccount",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
    }
    assert len(native) == 40


def test_the_validation_would_find_an_unknown_field() -> None:
    [deployment] = find(render(), "Deployment")
    deployment["spec"]["template"]["spec"]["containers"][0]["imagePullPolice"] = "Always"
    with pytest.raises(kubernetes_validate.ValidationError, match="imagePullPolice"):
        kubernetes_validate.validate(deployment, MINORS[0], strict=True)


@pytest.mark.parametrize("name", MATRIX)
def test_no_two_objects_are_the_same_one(name: str) -> None:
    names = [identify(item) for item in render(MATRIX[name])]
    assert sorted(set(names)) == names


def test_the_default_install_is_exactly_this() -> None:
    objects = [item for item in render() if item["kind"] != "CustomResourceDefinition"]
    assert objects == list(yaml.safe_load_all((GOLDEN / "default.yaml").read_text()))


def test_in_namespaces_the_rights_are_exactly_these() -> None:
    objects = render({"watch": {"namespaces": ["team-a", "team-b"]}, "userRoles": {"create": False}})
    found = [item for item in objects if "Role" in item["kind"]]
    assert found == list(yaml.safe_load_all((GOLDEN / "namespaced_rbac.yaml").read_text()))


def test_the_operator_has_exactly_the_rights_it_asks_for_at_its_start() -> None:
    [role] = [item for item in find(render(), "ClusterRole") if item["metadata"]["name"] == "tuning-finetune-operator"]
    granted = {
        (api_group, resource, verb)
        for rule in role["rules"]
        for api_group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    rules = access.list_rules(RESOURCE)
    needed = {(api_group, resource, verb) for api_group, resource, verbs in rules for verb in verbs}
    assert granted == needed
    assert {resource.partition("/")[0] for _, resource, _ in granted} == {"finetunejobs", "jobs", "pods", "events"}


def test_the_crd_is_the_one_of_the_code_with_labels_and_a_policy() -> None:
    [found] = find(render(), "CustomResourceDefinition")
    want = crd.build_crd()
    want["metadata"]["labels"] = _labels()
    want["metadata"]["annotations"] = {"helm.sh/resource-policy": "keep"}
    assert found == want


def test_the_crd_that_may_go_has_no_policy() -> None:
    [found] = find(render({"crds": {"keep": False}}), "CustomResourceDefinition")
    assert found["metadata"] == {"name": f"{group.PLURAL}.{group.GROUP}", "labels": _labels()}


def test_without_the_crd_nothing_else_changes() -> None:
    rest = [item for item in render() if item["kind"] != "CustomResourceDefinition"]
    assert render({"crds": {"install": False}}) == rest


def _labels() -> dict[str, str]:
    return {
        "app.kubernetes.io/name": "finetune-operator",
        "app.kubernetes.io/instance": "tuning",
        "app.kubernetes.io/component": "operator",
        "app.kubernetes.io/version": "0.1.0",
        "app.kubernetes.io/part-of": "finetune-operator",
        "app.kubernetes.io/managed-by": "Helm",
        "helm.sh/chart": "finetune-operator-0.1.0",
    }


def _container(*values: dict[str, Any]) -> dict[str, Any]:
    [deployment] = find(render(*values), "Deployment")
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    return dict(container)


def _environment(*values: dict[str, Any]) -> dict[str, str]:
    return {item["name"]: item["value"] for item in _container(*values)["env"]}


def test_the_environment_has_every_setting_of_the_operator_and_no_other() -> None:
    known = {settings.build_variable(name) for name in settings.Settings.model_fields}
    assert set(_environment()) == known - {"KUBERNETES_SERVICE_HOST"}


def test_the_values_by_default_are_the_defaults_of_the_operator() -> None:
    trainer_image = REQUIRED["trainer"]["image"]
    assert settings.load_settings(_environment()) == settings.Settings(trainer_image=trainer_image)


def test_values_reach_the_operator_as_they_were_written() -> None:
    values = {
        "trainer": {"image": "r/t:2"},
        "allowedImages": ["r/a:*", "r/b:*"],
        "allowedPriorityClasses": ["batch-*"],
        "allowedRuntimeClasses": ["nvidia"],
        "allowedServiceAccounts": ["trainer"],
        "allowedSecrets": ["s3-*"],
        "allowedEnvironment": ["WANDB_*"],
        "podMetadata": {"labels": ["cost-center"], "annotations": ["example.com/*"]},
        "allowedEndpoints": ["*.example.com", "169.254.169.254"],
        "insecureEndpoints": ["minio.internal"],
        "watch": {"namespaces": ["b", "a"]},
        "prepare": {"cpu": 2, "memory": "8Gi", "deadlineSeconds": 31_536_000},
        "kueue": {"queuePrepareJobs": True},
        "reconcile": {"workers": 16, "resyncSeconds": 300, "progressSeconds": 60, "unschedulableGraceSeconds": 0},
        "logging": {"level": "DEBUG", "format": "text"},
    }
    assert settings.load_settings(_environment(values)) == settings.Settings(
        trainer_image="r/t:2",
        allowed_images=("r/a:*", "r/b:*"),
        allowed_priority_classes=("batch-*",),
        allowed_runtime_classes=("nvidia",),
        allowed_service_accounts=("trainer",),
        allowed_secrets=("s3-*",),
        allowed_environment=("WANDB_*",),
        pod_labels=("cost-center",),
        pod_annotations=("example.com/*",),
        allowed_endpoints=("*.example.com", "169.254.169.254"),
        insecure_endpoints=("minio.internal",),
        watched_namespaces=("b", "a"),
        resync_seconds=300.0,
        progress_seconds=60,
        workers=16,
        prepare_cpu="2",
        prepare_memory="8Gi",
        prepare_deadline_seconds=31_536_000,
        queue_prepare_jobs=True,
        unschedulable_grace_seconds=0,
        log_format="text",
        log_level="DEBUG",
    )


def test_an_empty_list_means_none_and_not_the_default() -> None:
    found = settings.load_settings(
        _environment({"insecureEndpoints": [], "allowedEndpoints": [], "allowedSecrets": []})
    )
    assert (found.insecure_endpoints, found.allowed_endpoints, found.allowed_secrets) == ((), (), ())


def test_the_policy_knows_the_variables_that_the_operator_calls_harmless() -> None:
    [config] = find(render({"allowedEnvironment": ["WANDB_*"]}), "ConfigMap")
    assert config["data"]["allowedEnvironment"].splitlines() == [*admission.HARMLESS_VARIABLES, "WANDB_*"]


def test_ports_and_probes_agree_with_the_operator() -> None:
    container = _container()
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    defaults = settings.Settings(trainer_image="x")
    assert ports == {"health": defaults.health_port, "metrics": defaults.metrics_port}
    paths = {key: container[key]["httpGet"] for key in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert paths == {
        "startupProbe": {"path": "/healthz", "port": "health"},
        "livenessProbe": {"path": "/healthz", "port": "health"},
        "readinessProbe": {"path": "/readyz", "port": "metrics"},
    }


@pytest.mark.parametrize(
    ("image", "want"),
    [
        ({}, "registry.example.com/finetune-operator:0.1.0"),
        ({"tag": "dev"}, "registry.example.com/finetune-operator:dev"),
        ({"tag": "dev", "digest": "sha256:" + "a" * 64}, f"registry.example.com/finetune-operator@sha256:{'a' * 64}"),
    ],
    ids=["the chart's version", "a tag", "a digest before a tag"],
)
def test_the_image_is_named_once(image: dict[str, str], want: str) -> None:
    assert _container({"image": image})["image"] == want


def test_the_pod_keeps_to_the_restricted_standard() -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted; the real admission: contract."""
    [deployment] = find(render(), "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "fsGroup": 65532,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert [container["securityContext"] for container in pod["containers"]] == [
        {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    ]
    assert {key for key in pod if key.startswith(("host", "initContainers", "share"))} == set()
    assert pod["volumes"] == [{"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}}]


def test_two_operators_never_run_side_by_side() -> None:
    [deployment] = find(render(), "Deployment")
    assert (deployment["spec"]["replicas"], deployment["spec"]["strategy"]) == (1, {"type": "Recreate"})


def test_the_operator_is_scraped_under_the_name_that_alerts_use() -> None:
    [monitor] = find(
        render(MONITORS, {"metrics": {"serviceMonitor": {"labels": {"release": "prom"}}}}), "ServiceMonitor"
    )
    selector = {
        f"app.kubernetes.io/{key}": _labels()[f"app.kubernetes.io/{key}"] for key in ("name", "instance", "component")
    }
    assert monitor == {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "ServiceMonitor",
        "metadata": {
            "name": "tuning-finetune-operator",
            "namespace": "finetune-system",
            "labels": {**_labels(), "release": "prom"},
        },
        "spec": {
            "jobLabel": "app.kubernetes.io/part-of",
            "selector": {"matchLabels": selector},
            "endpoints": [{"port": "metrics", "interval": "30s", "honorLabels": True}],
        },
    }
    [service] = find(render(), "Service")
    assert selector.items() <= service["metadata"]["labels"].items()
    assert service["metadata"]["labels"]["app.kubernetes.io/part-of"] == "finetune-operator"


@pytest.mark.parametrize(
    ("namespaces", "want"),
    [([], {"any": True}), (["team-a", "team-b"], {"matchNames": ["team-a", "team-b"]})],
    ids=["the whole cluster", "two namespaces"],
)
def test_trainers_are_scraped_where_they_run(namespaces: list[str], want: dict[str, Any]) -> None:
    [monitor] = find(render(MONITORS, {"watch": {"namespaces": namespaces}}), "PodMonitor")
    label = "__meta_kubernetes_pod_label_" + group.LABEL_JOB.replace(".", "_").replace("/", "_")
    assert monitor["spec"] == {
        "selector": {"matchExpressions": [{"key": group.LABEL_JOB, "operator": "Exists"}]},
        "namespaceSelector": want,
        "podMetricsEndpoints": [
            {
                "port": run.METRICS_PORT_NAME,
                "interval": "15s",
                "relabelings": [{"sourceLabels": [label], "targetLabel": "finetune_job"}],
            }
        ],
    }


def test_the_release_named_like_the_chart_says_it_once() -> None:
    [deployment] = find(render(release="finetune-operator"), "Deployment")
    assert deployment["metadata"]["name"] == "finetune-operator"


def test_long_names_are_cut_to_what_a_label_holds() -> None:
    [deployment] = find(render(release="a" * 53), "Deployment")
    assert deployment["metadata"]["name"] == "a" * 53 + "-finetune"


@pytest.mark.parametrize(
    ("values", "want"),
    [
        ({}, "`helm uninstall` leaves the CustomResourceDefinition and all FineTuneJobs in place (crds.keep=true)."),
        ({"crds": {"keep": False}}, "WARNING: `helm uninstall` deletes the CustomResourceDefinition and with it ALL"),
        ({"crds": {"install": False}}, "The CustomResourceDefinition is not part of this release (crds.install=false)"),
    ],
    ids=["kept", "deleted", "from elsewhere"],
)
def test_the_notes_say_what_an_uninstall_does_to_the_crd(values: dict[str, Any], want: str) -> None:
    notes = chart_rendering.render_texts(values)["finetune-operator/templates/NOTES.txt"]
    assert want in notes
    assert notes.count("CustomResourceDefinition") == 1


def test_the_chart_has_the_version_of_the_project() -> None:
    metadata = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = tomllib.loads((CHART.parents[1] / "pyproject.toml").read_text())["project"]
    assert (metadata["version"], metadata["appVersion"]) == (project["version"], project["version"])
    assert metadata["kubeVersion"] == f">={MINORS[0]}.0-0"


def test_the_examples_for_artifact_hub_are_valid() -> None:
    metadata = yaml.safe_load((CHART / "Chart.yaml").read_text())
    examples = yaml.safe_load(metadata["annotations"]["artifacthub.io/crdsExamples"])
    [described] = yaml.safe_load(metadata["annotations"]["artifacthub.io/crds"])
    assert [validation.validate_manifest(item) for item in examples] == [[]]
    assert (described["kind"], described["version"], described["name"]) == (
        group.KIND,
        group.VERSION,
        crd.build_crd()["metadata"]["name"],
    )

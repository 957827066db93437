"""The manifests, whole: what the operator asks the API server for."""

import json
from typing import Any

import cluster_objects as objects
import pytest
from cluster_objects import UID, make_job
from manifests import Manifest

from finetune_api import names
from finetune_api.kinds.finetunejob.spec import FineTuneJobSpec
from finetune_api.run import JobIdentity, PreparedReference, RunConfig, Stage
from finetune_operator.jobs.builders import inherited
from finetune_operator.jobs.builders import job as job_builder
from finetune_operator.jobs.builders.inherited import Inherited
from finetune_operator.settings import Settings

SETTINGS = Settings(trainer_image="registry.example.com/finetune-trainer:1")
NOTHING = Inherited()
PREPARED = PreparedReference(attempt=1, sha256="a" * 64)


def _build(
    stage: Stage,
    attempt: int = 1,
    settings: Settings = SETTINGS,
    inherited: Inherited = NOTHING,
    grace_seconds: int = 120,
    **edits: Any,
) -> Manifest:
    spec = FineTuneJobSpec.model_validate(make_job(**edits)["spec"])
    return job_builder.build_job(
        JobIdentity(namespace="demo", name="movies", uid=UID, attempt=attempt),
        spec,
        stage,
        image=spec.trainer.image or settings.trainer_image,
        prepared=PREPARED if stage is Stage.TRAIN else None,
        deadline_seconds=90_000,
        grace_seconds=grace_seconds,
        settings=settings,
        inherited=inherited,
    )


def _pod(built: Manifest) -> Manifest:
    pod: Manifest = built["spec"]["template"]["spec"]
    return pod


def _container(built: Manifest) -> Manifest:
    [container] = _pod(built)["containers"]
    return dict(container)


def _environment(built: Manifest) -> dict[str, Any]:
    return {item["name"]: item.get("value", item.get("valueFrom")) for item in _container(built)["env"]}


def test_the_train_job_of_a_gpu_run_is_exactly_this() -> None:
    built = _build(
        Stage.TRAIN,
        2,
        spec__storage={"secretName": "s3-credentials", "endpointURL": "http://s3.demo.svc:8333", "region": "eu-west-1"},
        spec__resources={"gpus": 2, "cpu": "3500m", "memory": "16Gi", "scratch": "50Gi"},
        spec__placement={
            "nodeSelector": {"gpu": "a100"},
            "tolerations": [{"key": "spot", "operator": "Exists"}],
            "priorityClassName": "high",
            "queueName": "team-a",
            "runtimeClassName": "nvidia",
            "serviceAccountName": "trainer",
        },
        spec__trainer={"imagePullSecrets": [{"name": "pull"}], "env": [{"name": "NCCL_DEBUG", "value": "INFO"}]},
    )
    config = built["spec"]["template"]["metadata"]["annotations"].pop("finetune.dev/run-config")
    labels = {
        "finetune.dev/job": "movies",
        "finetune.dev/uid": UID,
        "finetune.dev/stage": "train",
        "finetune.dev/attempt": "2",
        "app.kubernetes.io/name": "finetune-trainer",
        "app.kubernetes.io/component": "train",
        "app.kubernetes.io/managed-by": "finetune-operator",
        "app.kubernetes.io/part-of": "finetune-operator",
    }
    limits = {"cpu": "3500m", "memory": "16Gi", "nvidia.com/gpu": "2"}
    assert built == {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": names.build_child_name("movies", UID, "train", 2),
            "namespace": "demo",
            "labels": labels | {"kueue.x-k8s.io/queue-name": "team-a"},
            "ownerReferences": [
                {
                    "apiVersion": "finetune.dev/v1alpha1",
                    "kind": "FineTuneJob",
                    "name": "movies",
                    "uid": UID,
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
        "spec": {
            "parallelism": 1,
            "completions": 1,
            "backoffLimit": 0,
            "activeDeadlineSeconds": 90_000,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {
                "rules": [
                    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                    {
                        "action": "FailJob",
                        "onExitCodes": {
                            "containerName": "trainer",
                            "operator": "In",
                            "values": [64, 65, 66, 77, 78, 79, 80],
                        },
                    },
                    {
                        "action": "Ignore",
                        "onExitCodes": {"containerName": "trainer", "operator": "In", "values": [143]},
                    },
                ]
            },
            "template": {
                "metadata": {"labels": labels, "annotations": {}},
                "spec": {
                    "restartPolicy": "Never",
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "terminationGracePeriodSeconds": 120,
                    "securityContext": {
                        "runAsNonRoot": True,
                        "runAsUser": 65532,
                        "runAsGroup": 65532,
                        "fsGroup": 65532,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "containers": [
                        {
                            "name": "trainer",
                            "image": "registry.example.com/finetune-trainer:1",
                            "imagePullPolicy": "IfNotPresent",
                            "env": [
                                {"name": "HOME", "value": "/scratch"},
                                {"name": "TMPDIR", "value": "/scratch"},
                                {"name": "HF_HOME", "value": "/scratch/huggingface"},
                                {"name": "HF_HUB_DISABLE_TELEMETRY", "value": "1"},
                                {"name": "HF_HUB_OFFLINE", "value": "1"},
                                {"name": "NCCL_DEBUG", "value": "INFO"},
                                {"name": "OMP_NUM_THREADS", "value": "4"},
                                {"name": "OMP_WAIT_POLICY", "value": "PASSIVE"},
                                {"name": "TORCH_NCCL_ASYNC_ERROR_HANDLING", "value": "1"},
                                {"name": "FINETUNE_GRACE_SECONDS", "value": "120"},
                                {"name": "FINETUNE_SCRATCH", "value": "/scratch"},
                                {"name": "AWS_ENDPOINT_URL_S3", "value": "http://s3.demo.svc:8333"},
                                {"name": "AWS_REGION", "value": "eu-west-1"},
                                {"name": "AWS_DEFAULT_REGION", "value": "eu-west-1"},
                                {"name": "FINETUNE_POD_UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
                                {
                                    "name": "AWS_ACCESS_KEY_ID",
                                    "valueFrom": {
                                        "secretKeyRef": {"name": "s3-credentials", "key": "AWS_ACCESS_KEY_ID"}
                                    },
                                },
                                {
                                    "name": "AWS_SECRET_ACCESS_KEY",
                                    "valueFrom": {
                                        "secretKeyRef": {"name": "s3-credentials", "key": "AWS_SECRET_ACCESS_KEY"}
                                    },
                                },
                                {
                                    "name": "AWS_SESSION_TOKEN",
                                    "valueFrom": {
                                        "secretKeyRef": {
                                            "name": "s3-credentials",
                                            "key": "AWS_SESSION_TOKEN",
                                            "optional": True,
                                        }
                                    },
                                },
                            ],
                            "resources": {"requests": limits | {"ephemeral-storage": "50Gi"}, "limits": limits},
                            "ports": [{"name": "metrics", "containerPort": 9400, "protocol": "TCP"}],
                            "volumeMounts": [
                                {"name": "run", "mountPath": "/run/finetune", "readOnly": True},
                                {"name": "scratch", "mountPath": "/scratch"},
                                {"name": "shared-memory", "mountPath": "/dev/shm"},
                            ],
                            "terminationMessagePath": "/dev/termination-log",
                            "terminationMessagePolicy": "FallbackToLogsOnError",
                            "securityContext": {
                                "allowPrivilegeEscalation": False,
                                "readOnlyRootFilesystem": True,
                                "runAsNonRoot": True,
                                "capabilities": {"drop": ["ALL"]},
                            },
                        }
                    ],
                    "volumes": [
                        {
                            "name": "run",
                            "downwardAPI": {
                                "items": [
                                    {
                                        "path": "run.json",
                                        "fieldRef": {"fieldPath": "metadata.annotations['finetune.dev/run-config']"},
                                    }
                                ]
                            },
                        },
                        {"name": "scratch", "emptyDir": {"sizeLimit": "50Gi"}},
                        {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": str(4 * 2**30)}},
                    ],
                    "tolerations": [
                        {"key": "spot", "operator": "Exists"},
                        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
                    ],
                    "nodeSelector": {"gpu": "a100"},
                    "priorityClassName": "high",
                    "runtimeClassName": "nvidia",
                    "serviceAccountName": "trainer",
                    "imagePullSecrets": [{"name": "pull"}],
                },
            },
        },
    }
    parsed = RunConfig.model_validate_json(config)
    assert (parsed.job.attempt, parsed.stage, parsed.prepared) == (2, Stage.TRAIN, PREPARED)
    assert parsed.image == "registry.example.com/finetune-trainer:1"
    assert "s3-credentials" in config, "the Secret's name is no secret"


def test_the_same_input_gives_the_same_bytes() -> None:
    assert json.dumps(_build(Stage.TRAIN)) == json.dumps(_build(Stage.TRAIN))


@pytest.mark.parametrize(
    ("sentence", "stage", "edits", "want"),
    [
        ("prepare never asks for a GPU", Stage.PREPARE, {"gpus": 8}, {"cpu": "1", "memory": "4Gi"}),
        (
            "prepare asks for no more than train",
            Stage.PREPARE,
            {"cpu": "500m", "memory": "1Gi"},
            {"cpu": "500m", "memory": "1Gi"},
        ),
        ("no GPUs: none asked for", Stage.TRAIN, {"gpus": 0, "cpu": "2"}, {"cpu": "2", "memory": "16Gi"}),
        (
            "another vendor's GPUs",
            Stage.TRAIN,
            {"gpus": 1, "gpuResource": "amd.com/gpu"},
            {"cpu": "4", "memory": "16Gi", "amd.com/gpu": "1"},
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_limits(sentence: str, stage: Stage, edits: Manifest, want: Manifest) -> None:
    resources = _container(_build(stage, spec__resources=edits))["resources"]
    assert resources["limits"] == want
    assert resources["requests"] == want | {"ephemeral-storage": "50Gi"}


@pytest.mark.parametrize(
    ("sentence", "stage", "resources", "selector", "want"),
    [
        ("train on a GPU tolerates GPU nodes", Stage.TRAIN, {"gpus": 1}, {}, ["nvidia.com/gpu"]),
        ("train on the CPU does not", Stage.TRAIN, {"gpus": 0}, {}, []),
        ("prepare does not", Stage.PREPARE, {"gpus": 1}, {}, []),
        (
            "prepare does where the selector leaves only GPU nodes",
            Stage.PREPARE,
            {"gpus": 1},
            {"gpu": "a"},
            ["nvidia.com/gpu"],
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_tolerations(sentence: str, stage: Stage, resources: Manifest, selector: Manifest, want: list[str]) -> None:
    built = _build(stage, spec__resources=resources, spec__placement={"nodeSelector": selector})
    assert [item["key"] for item in _pod(built)["tolerations"]] == want


def test_without_storage_settings_the_pods_own_identity_is_used() -> None:
    environment = _environment(_build(Stage.TRAIN))
    assert [name for name in environment if name.startswith("AWS_")] == ["AWS_REGION", "AWS_DEFAULT_REGION"]


def test_a_user_can_set_threads_but_neither_credentials_nor_our_own_variables() -> None:
    values = {"OMP_NUM_THREADS": "1", "FINETUNE_SCRATCH": "/elsewhere", "AWS_SESSION_TOKEN": "x"}
    env = [{"name": name, "value": value} for name, value in values.items()]
    environment = _environment(
        _build(Stage.TRAIN, spec__trainer={"env": env}, spec__storage={"secretName": "s3-credentials"})
    )
    assert environment["OMP_NUM_THREADS"] == "1"
    assert environment["FINETUNE_SCRATCH"] == "/scratch"
    assert environment["AWS_SESSION_TOKEN"]["secretKeyRef"]["name"] == "s3-credentials"


@pytest.mark.parametrize(
    ("stage", "resources", "want"),
    [
        (Stage.PREPARE, {"gpus": 2}, "void"),
        (Stage.TRAIN, {"gpus": 0}, "void"),
        (Stage.TRAIN, {"gpus": 2}, None),
        (Stage.TRAIN, {"gpus": 1, "gpuResource": "nvidia.com/mig-1g.10gb"}, None),
    ],
)
def test_a_pod_that_asks_for_no_gpu_sees_none(stage: Stage, resources: Manifest, want: str | None) -> None:
    assert _environment(_build(stage, spec__resources=resources)).get("NVIDIA_VISIBLE_DEVICES") == want


@pytest.mark.parametrize(("cpu", "want"), [("100m", "1"), ("1", "1"), ("1500m", "2"), ("8", "8"), ("7.5", "8")])
def test_threads_are_the_cpus_rounded_up(cpu: str, want: str) -> None:
    assert _environment(_build(Stage.TRAIN, spec__resources={"cpu": cpu}))["OMP_NUM_THREADS"] == want


@pytest.mark.parametrize(
    ("stage", "queues_prepare", "want"), [(Stage.TRAIN, False, 1), (Stage.PREPARE, False, 0), (Stage.PREPARE, True, 1)]
)
def test_the_queue_label_stands_on_the_train_job(stage: Stage, queues_prepare: bool, want: int) -> None:
    settings = Settings(trainer_image="trainer:1", queue_prepare_jobs=queues_prepare)
    built = _build(stage, settings=settings, spec__placement={"queueName": "team-a"})
    assert list(built["metadata"]["labels"].values()).count("team-a") == want


def test_an_allowed_image_of_the_job_is_used() -> None:
    built = _build(Stage.TRAIN, spec__trainer={"image": "registry.example.com/mine@sha256:" + "0" * 64})
    assert _container(built)["image"].startswith("registry.example.com/mine@")


def test_labels_and_names_stay_within_63_characters() -> None:
    name = "a" * names.MAX_JOB_NAME_LENGTH
    identity = JobIdentity(namespace="demo", name=name, uid=UID, attempt=999)
    labels = job_builder.build_labels(identity, Stage.PREPARE)
    assert all(len(value) <= 63 for value in labels.values())
    assert len(names.build_child_name(name, UID, "prepare", 999)) <= 63
    assert objects.UID == UID


def test_labels_and_annotations_that_are_passed_on_stand_on_job_and_pod_and_ours_win() -> None:
    given = Inherited(
        labels={"cost-center": "42", "app.kubernetes.io/name": "mine"}, annotations={"sidecar.istio.io/inject": "false"}
    )
    plain, built = _build(Stage.TRAIN), _build(Stage.TRAIN, inherited=given)
    assert built["metadata"]["labels"] == plain["metadata"]["labels"] | {"cost-center": "42"}
    assert built["metadata"]["annotations"] == {"sidecar.istio.io/inject": "false"}
    pod, plain_pod = (item["spec"]["template"]["metadata"] for item in (built, plain))
    assert pod["labels"] == plain_pod["labels"] | {"cost-center": "42"}
    assert pod["annotations"] == plain_pod["annotations"] | {"sidecar.istio.io/inject": "false"}


@pytest.mark.parametrize(
    ("key", "allowed", "want"),
    [
        ("cost-center", ["cost-center"], True),
        ("cost-center", ["cost-*"], True),
        ("cost-center", ["*"], True),
        ("cost-center", [], False),
        ("example.com/team", ["*"], False),
        ("example.com/team", ["*/*"], True),
        ("example.com/team", ["example.com/*"], True),
        ("azure.workload.identity/use", ["azure.workload.identity/use"], True),
        ("cluster-autoscaler.kubernetes.io/safe-to-evict", ["cluster-autoscaler.kubernetes.io/*"], True),
        ("finetune.dev/uid", ["*/*"], False),
        ("finetune.dev/run-config", ["finetune.dev/run-config"], False),
        ("kueue.x-k8s.io/queue-name", ["*/*"], False),
        ("argocd.argoproj.io/tracking-id", ["*/*"], False),
        ("kustomize.toolkit.fluxcd.io/name", ["*/*"], False),
        ("meta.helm.sh/release-name", ["*/*"], False),
        ("app.kubernetes.io/instance", ["*/*"], False),
        ("batch.kubernetes.io/job-name", ["*/*"], False),
        ("kubectl.kubernetes.io/last-applied-configuration", ["*/*"], False),
        ("job-name", ["*"], False),
        ("controller-uid", ["*"], False),
    ],
)
def test_only_what_the_administrator_lists_is_passed_on_and_never_what_others_own(
    key: str, allowed: list[str], want: bool
) -> None:
    assert inherited.choose({key: "x", "unlisted.example.org/a": "y"}, allowed).get(key) == ("x" if want else None)


def test_a_job_gets_what_its_finetunejob_carries_when_the_attempt_starts() -> None:
    settings = SETTINGS.model_copy(update={"pod_labels": ("cost-*",), "pod_annotations": ("example.com/*",)})
    cluster = objects.Cluster(settings=settings)
    cluster.job["metadata"] |= {
        "labels": {"cost-center": "42", "secret": "x"},
        "annotations": {"example.com/team": "a", "other.example.com/b": "c"},
    }
    cluster.step(0)
    [child] = cluster.children
    for metadata in (child["metadata"], child["spec"]["template"]["metadata"]):
        assert (metadata["labels"]["cost-center"], metadata["labels"].get("secret")) == ("42", None)
        assert metadata["annotations"]["example.com/team"] == "a"
        assert "other.example.com/b" not in metadata["annotations"]

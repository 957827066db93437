"""The pod of one attempt: one container that satisfies the Pod Security level `restricted`.

Only what `placement`, `resources`, `storage` and `trainer` of the spec express gets into a pod; there is no pod
template for users to fill in. Credentials come by `secretKeyRef` of fixed keys: the operator never reads a Secret.
"""

import math
from decimal import Decimal
from typing import Any

from finetune_api import group, quantities, run
from finetune_api.kinds.finetunejob.spec import FineTuneJobSpec
from finetune_api.run import Stage
from finetune_operator.settings import Settings

Manifest = dict[str, Any]

USER_ID = 65532
"""The image's user: https://github.com/GoogleContainerTools/distroless names the same number `nonroot`."""
CREDENTIAL_KEYS = {"AWS_ACCESS_KEY_ID": False, "AWS_SECRET_ACCESS_KEY": False, "AWS_SESSION_TOKEN": True}
"""Keys of the Secret that `storage.secretName` names, and whether one may be absent."""
_SHARED_MEMORY_PART = 4
"""Shared memory gets this part of the memory limit it counts against (a choice): loader workers pass batches in it."""


def build_pod_spec(spec: FineTuneJobSpec, stage: Stage, image: str, settings: Settings, grace_seconds: int) -> Manifest:
    """Build the pod's spec for one stage.

    Args:
        spec: with all defaults.
        stage: prepare or train.
        image: of the trainer.
        settings: resources of the prepare stage.
        grace_seconds: what the pod gets to end after it was told to.
    """
    resources = _build_resources(spec, stage, settings)
    placement = spec.placement
    pod: Manifest = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": grace_seconds,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER_ID,
            "runAsGroup": USER_ID,
            "fsGroup": USER_ID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_build_container(spec, stage, image, resources, grace_seconds)],
        "volumes": _build_volumes(spec, stage, resources["limits"]["memory"]),
        "tolerations": _build_tolerations(spec, stage),
    }
    optional = {
        "nodeSelector": dict(placement.node_selector),
        "priorityClassName": placement.priority_class_name,
        "runtimeClassName": placement.runtime_class_name,
        "serviceAccountName": placement.service_account_name,
        "imagePullSecrets": [{"name": secret.name} for secret in spec.trainer.image_pull_secrets],
    }
    return pod | {key: value for key, value in optional.items() if value}


def _build_container(
    spec: FineTuneJobSpec, stage: Stage, image: str, resources: Manifest, grace_seconds: int
) -> Manifest:
    mounts = [
        {"name": "run", "mountPath": run.RUN_CONFIG_DIRECTORY, "readOnly": True},
        {"name": "scratch", "mountPath": run.SCRATCH_DIRECTORY},
    ]
    if stage is Stage.TRAIN:
        mounts.append({"name": "shared-memory", "mountPath": "/dev/shm"})  # noqa: S108 - where torch looks for it
    return {
        "name": run.CONTAINER_NAME,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "env": _build_environment(spec, resources["limits"], grace_seconds),
        "resources": resources,
        "ports": [{"name": run.METRICS_PORT_NAME, "containerPort": run.METRICS_PORT, "protocol": "TCP"}],
        "volumeMounts": mounts,
        "terminationMessagePath": run.TERMINATION_LOG_PATH,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }


def _build_resources(spec: FineTuneJobSpec, stage: Stage, settings: Settings) -> Manifest:
    """Limit equals request: a trainer that is throttled or evicted for lack of either costs more than it saves."""
    wanted = spec.resources
    cpu, memory = wanted.cpu, wanted.memory
    if stage is Stage.PREPARE:
        # Never more than the training asks for, or a small node could run the one stage and not the other.
        cpu = min(cpu, settings.prepare_cpu, key=quantities.parse_quantity)
        memory = min(memory, settings.prepare_memory, key=quantities.parse_quantity)
    limits: Manifest = {"cpu": cpu, "memory": memory}
    if stage is Stage.TRAIN and wanted.gpus:
        limits[wanted.gpu_resource] = str(wanted.gpus)
    return {"requests": limits | {"ephemeral-storage": wanted.scratch}, "limits": limits}


def _build_environment(spec: FineTuneJobSpec, limits: Manifest, grace_seconds: int) -> list[Manifest]:
    """Defaults, then the user's variables, then ours: what the run depends on can't be overridden."""
    threads = str(max(1, math.ceil(quantities.parse_quantity(limits["cpu"]))))
    values = {
        "HOME": run.SCRATCH_DIRECTORY,
        "TMPDIR": run.SCRATCH_DIRECTORY,
        "HF_HOME": f"{run.SCRATCH_DIRECTORY}/huggingface",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": "1",
        "NCCL_DEBUG": "WARN",
        "OMP_NUM_THREADS": threads,
        "OMP_WAIT_POLICY": "PASSIVE",
        "TORCH_NCCL_ASYNC_ERROR_HANDLING": "1",
    }
    values |= {item.name: item.value for item in spec.trainer.env}
    values |= {run.GRACE_VARIABLE: str(grace_seconds), run.SCRATCH_VARIABLE: run.SCRATCH_DIRECTORY}
    if spec.resources.gpu_resource not in limits:
        # Where NVIDIA's runtime is the node's default, a container that asks for no GPU sees all of them.
        values["NVIDIA_VISIBLE_DEVICES"] = "void"
    storage = spec.storage
    if storage.endpoint_url:
        values["AWS_ENDPOINT_URL_S3"] = storage.endpoint_url
    if storage.region:
        values |= {"AWS_REGION": storage.region, "AWS_DEFAULT_REGION": storage.region}
    secrets = CREDENTIAL_KEYS if storage.secret_name else {}
    taken = {*secrets, run.POD_UID_VARIABLE}
    plain: list[Manifest] = [{"name": name, "value": value} for name, value in values.items() if name not in taken]
    plain.append({"name": run.POD_UID_VARIABLE, "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}})
    return plain + [_build_secret_variable(storage.secret_name, key, optional) for key, optional in secrets.items()]


def _build_secret_variable(secret: str, key: str, is_optional: bool) -> Manifest:
    reference: Manifest = {"name": secret, "key": key}
    if is_optional:
        reference["optional"] = True
    return {"name": key, "valueFrom": {"secretKeyRef": reference}}


def _build_volumes(spec: FineTuneJobSpec, stage: Stage, memory: str) -> list[Manifest]:
    field = f"metadata.annotations['{group.ANNOTATION_RUN_CONFIG}']"
    volumes: list[Manifest] = [
        {
            "name": "run",
            "downwardAPI": {"items": [{"path": run.RUN_CONFIG_FILE, "fieldRef": {"fieldPath": field}}]},
        },
        {"name": "scratch", "emptyDir": {"sizeLimit": spec.resources.scratch}},
    ]
    if stage is Stage.TRAIN:
        size = quantities.parse_quantity(memory) / Decimal(_SHARED_MEMORY_PART)
        volumes.append({"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": str(int(size))}})
    return volumes


def _build_tolerations(spec: FineTuneJobSpec, stage: Stage) -> list[Manifest]:
    result: list[Manifest] = [
        item.model_dump(mode="json", exclude_defaults=True) | {"operator": item.operator}
        for item in spec.placement.tolerations
    ]
    # A node selector may leave GPU nodes alone for the CPU stage, which must then be tolerated there too.
    if spec.resources.gpus and (stage is Stage.TRAIN or spec.placement.node_selector):
        gpu: Manifest = {"key": spec.resources.gpu_resource, "operator": "Exists", "effect": "NoSchedule"}
        result += [gpu] if gpu not in result else []
    return result

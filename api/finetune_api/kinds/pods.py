"""How a kind says what its pods get: resources, place, image and environment."""

from typing import Annotated

from pydantic import Field

from finetune_api.kinds.field_types import (
    ENV_NAME_PATTERN,
    IMAGE_PATTERN,
    LABEL_KEY_PATTERN,
    LABEL_VALUE_PATTERN,
    OPTIONAL_NAME_PATTERN,
    PRINTABLE_PATTERN,
    RESOURCE_PATTERN,
    Name,
    Unique,
)
from finetune_api.kinds.object_model import Model
from finetune_api.quantities import BytesQuantity, CpuQuantity


class Resources(Model):
    gpus: Annotated[int, Field(ge=0, le=16)] = 1
    """gpus per node. 0 trains on the CPU."""
    nodes: Annotated[int, Field(ge=1, le=64)] = 1
    """nodes the training runs on."""
    cpu: CpuQuantity = "4"
    """cpu cores of the train pod, as a Kubernetes quantity, from 100m."""
    memory: BytesQuantity = "16Gi"
    """memory of the train pod, as a Kubernetes quantity, from 512Mi."""
    scratch: BytesQuantity = "50Gi"
    """scratch is the local disk for model, data and checkpoints, from 256Mi."""
    gpu_resource: Annotated[str, Field(max_length=128, pattern=RESOURCE_PATTERN)] = "nvidia.com/gpu"
    """gpuResource is the extended resource that counts GPUs."""


class Toleration(Model):
    key: Annotated[str, Field(max_length=317, pattern=LABEL_KEY_PATTERN)] = ""
    """key of the taint; empty with operator Exists matches every taint."""
    operator: Annotated[str, Field(max_length=16, pattern=r"^(Exists|Equal)$")] = "Equal"
    """operator: Exists or Equal."""
    value: Annotated[str, Field(max_length=63, pattern=LABEL_VALUE_PATTERN)] = ""
    """value of the taint; with operator Equal."""
    effect: Annotated[str, Field(max_length=32, pattern=r"^(|NoSchedule|PreferNoSchedule|NoExecute)$")] = ""
    """effect of the taint; empty matches every effect."""


class Placement(Model):
    node_selector: dict[
        Annotated[str, Field(max_length=317)], Annotated[str, Field(max_length=63, pattern=LABEL_VALUE_PATTERN)]
    ] = Field(default={}, max_length=32)
    """nodeSelector: labels a node must carry."""
    tolerations: list[Toleration] = Field(
        default=[], max_length=32, json_schema_extra={"x-kubernetes-list-type": "atomic"}
    )
    """tolerations of node taints."""
    priority_class_name: Name = ""
    """priorityClassName of the pods."""
    queue_name: Annotated[str, Field(pattern=OPTIONAL_NAME_PATTERN, max_length=63)] = ""
    """queueName of a Kueue LocalQueue in the job's namespace."""
    runtime_class_name: Name = ""
    """runtimeClassName of the pods."""
    service_account_name: Name = ""
    """serviceAccountName of the pods, for cloud identities. No token of it is mounted."""


class EnvVar(Model):
    name: Annotated[str, Field(min_length=1, max_length=128, pattern=ENV_NAME_PATTERN)]
    """name of the variable; names that look like secrets are refused."""
    value: Annotated[str, Field(max_length=4096, pattern=PRINTABLE_PATTERN)] = ""
    """value as plain text, readable by everybody who may read the job."""


class LocalObjectReference(Model):
    name: Annotated[str, Field(min_length=1, max_length=253, pattern=OPTIONAL_NAME_PATTERN)]
    """name of a Secret in the job's namespace."""


class Trainer(Model):
    image: Annotated[str, Field(max_length=512, pattern=IMAGE_PATTERN)] = ""
    """image of the trainer, from the operator's allow-list. Empty: the operator's default."""
    image_pull_secrets: Annotated[list[LocalObjectReference], Unique] = Field(
        default=[],
        max_length=8,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    """imagePullSecrets for the trainer image."""
    env: Annotated[list[EnvVar], Unique] = Field(
        default=[],
        max_length=64,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    """env adds plain variables to the trainer."""

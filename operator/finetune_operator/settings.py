"""The operator's configuration: environment variables into one frozen object.

The only reader of `os.environ`. Every variable but one of Kubernetes begins with `FINETUNE_`, has a default that works
in a cluster and is documented below its field; the chart sets them from its values. A value that can't be used ends the
start with all errors at once.
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import TypeVar

from finetune_api import quantities

T = TypeVar("T")


class SettingsError(Exception):
    """The environment can't be used; the message names every variable at fault."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What an administrator decides."""

    trainer_image: str
    """FINETUNE_TRAINER_IMAGE: image of the trainer where a job names none; required."""
    allowed_images: tuple[str, ...] = ()
    """FINETUNE_ALLOWED_IMAGES: patterns, separated by commas, that a job's `spec.trainer.image` must match; the default
    image is always allowed. In these patterns and those below, `*` stands for any text without a slash."""
    allowed_priority_classes: tuple[str, ...] = ()
    """FINETUNE_ALLOWED_PRIORITY_CLASSES: patterns that `spec.placement.priorityClassName` must match; those of
    Kubernetes itself (system-…) are refused by the schema. Empty: a job may name none, as in the next two."""
    allowed_runtime_classes: tuple[str, ...] = ()
    """FINETUNE_ALLOWED_RUNTIME_CLASSES: patterns that `spec.placement.runtimeClassName` must match."""
    allowed_service_accounts: tuple[str, ...] = ()
    """FINETUNE_ALLOWED_SERVICE_ACCOUNTS: patterns that `spec.placement.serviceAccountName` must match: with an account
    comes its cloud identity."""
    allowed_secrets: tuple[str, ...] = ("*",)
    """FINETUNE_ALLOWED_SECRETS: patterns that `spec.storage.secretName` and `spec.trainer.imagePullSecrets` must match;
    they are Secrets of the job's own namespace."""
    allowed_endpoints: tuple[str, ...] = ("*",)
    """FINETUNE_ALLOWED_ENDPOINTS: patterns that the host of `spec.storage.endpointURL` must match. The API server,
    metadata services, link-local and loopback addresses are allowed only where they are named without a `*`."""
    allowed_environment: tuple[str, ...] = ()
    """FINETUNE_ALLOWED_ENVIRONMENT: patterns of variables that `spec.trainer.env` may set, beside the harmless ones
    (HARMLESS_VARIABLES in jobs/policies/admission.py)."""
    insecure_endpoints: tuple[str, ...] = ("*.svc", "*.svc.cluster.local")
    """FINETUNE_INSECURE_ENDPOINTS: patterns of hosts that may be reached by http://; elsewhere https:// is required."""
    pod_labels: tuple[str, ...] = ()
    """FINETUNE_POD_LABELS: patterns of labels of a FineTuneJob that its Jobs and pods get too, such as a cost centre.
    Those of other controllers are never passed on (RESERVED_DOMAINS in jobs/builders/inherited.py)."""
    pod_annotations: tuple[str, ...] = ()
    """FINETUNE_POD_ANNOTATIONS: the same for annotations."""
    api_server_host: str = ""
    """KUBERNETES_SERVICE_HOST: address of the API server, which Kubernetes sets in every container."""
    watched_namespaces: tuple[str, ...] = ()
    """FINETUNE_WATCHED_NAMESPACES: names, separated by commas. Empty: the whole cluster."""
    resync_seconds: float = 120.0
    """FINETUNE_RESYNC_SECONDS between two comparisons of everything with the API server (a choice)."""
    workers: int = 24
    """FINETUNE_WORKERS: FineTuneJobs reconciled at the same time (a choice; one is never in two workers)."""
    prepare_cpu: str = "1"
    """FINETUNE_PREPARE_CPU of the prepare pod; less where the job's own `spec.resources.cpu` is less."""
    prepare_memory: str = "4Gi"
    """FINETUNE_PREPARE_MEMORY of the prepare pod; less where the job's own `spec.resources.memory` is less."""
    prepare_deadline_seconds: int = 3600
    """FINETUNE_PREPARE_DEADLINE_SECONDS of running time for one prepare attempt."""
    queue_prepare_jobs: bool = False
    """FINETUNE_QUEUE_PREPARE_JOBS puts the job's Kueue queue on the prepare Job too."""
    unschedulable_grace_seconds: int = 45
    """FINETUNE_UNSCHEDULABLE_GRACE_SECONDS before a pod without a node makes the job Stalled: within a minute it
    is told (a choice); more where an autoscaler brings nodes, which takes minutes."""
    health_port: int = 8080
    """FINETUNE_HEALTH_PORT serves /healthz."""
    metrics_port: int = 9090
    """FINETUNE_METRICS_PORT serves /metrics and /readyz."""
    metrics_token_file: str = ""
    """FINETUNE_METRICS_TOKEN_FILE: /metrics asks for the bearer token in this file. Empty: for none."""
    log_format: str = "json"
    """FINETUNE_LOG_FORMAT: json or text."""
    log_level: str = "INFO"
    """FINETUNE_LOG_LEVEL: DEBUG, INFO, WARNING or ERROR."""


def load_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from the environment.

    Raises:
        SettingsError: variables are missing or can't be used; all of them are named.
    """
    values = os.environ if environment is None else environment
    errors: list[str] = []
    parsed: dict[str, object] = {}
    for field in fields(Settings):
        name, parser = build_variable(field.name), _PARSERS.get(field.name, str)
        text = values.get(name, "").strip()
        # An empty list is a decision, an empty text or number is none.
        if name not in values or (not text and parser is not _parse_list):
            continue
        try:
            parsed[field.name] = parser(text)
        except ValueError as error:
            errors.append(f"{name} ({text}) must {error}")
    if "trainer_image" not in parsed:
        errors.append("FINETUNE_TRAINER_IMAGE is missing; it must name the trainer's image")
    if errors:
        raise SettingsError("; ".join(errors))
    return Settings(**parsed)  # type: ignore[arg-type]  # the parsers below give each field its type


def build_variable(field: str) -> str:
    """Return the name of the variable that sets a field."""
    return "KUBERNETES_SERVICE_HOST" if field == "api_server_host" else f"FINETUNE_{field.upper()}"


def _parse_list(text: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in text.split(",") if item.strip())


def _parse_flag(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError("be true or false")
    return text.lower() == "true"


def _parse_number(kind: Callable[[str], T], minimum: int, maximum: int) -> Callable[[str], T]:
    def parse(text: str) -> T:
        try:
            value = kind(text)
        except ValueError:
            raise ValueError(f"be a number from {minimum} to {maximum}") from None
        if not minimum <= float(str(value)) <= maximum:
            raise ValueError(f"be a number from {minimum} to {maximum}")
        return value

    return parse


def _parse_choice(*allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"be one of {', '.join(allowed)}")
        return text

    return parse


def _parse_quantity(text: str) -> str:
    # The pattern of the API: the parser alone would take signs and NaN, which the API server then refuses in each pod.
    if not re.fullmatch(quantities.QUANTITY_PATTERN, text):
        raise ValueError("be a Kubernetes quantity such as 1 or 4Gi")
    return text


_PARSERS: dict[str, Callable[[str], object]] = {
    "allowed_images": _parse_list,
    "allowed_priority_classes": _parse_list,
    "allowed_runtime_classes": _parse_list,
    "allowed_service_accounts": _parse_list,
    "allowed_secrets": _parse_list,
    "allowed_endpoints": _parse_list,
    "allowed_environment": _parse_list,
    "pod_labels": _parse_list,
    "pod_annotations": _parse_list,
    "insecure_endpoints": _parse_list,
    "watched_namespaces": _parse_list,
    "resync_seconds": _parse_number(float, 1, 3600),
    "workers": _parse_number(int, 1, 256),
    "prepare_cpu": _parse_quantity,
    "prepare_memory": _parse_quantity,
    "prepare_deadline_seconds": _parse_number(int, 60, 31_536_000),
    "queue_prepare_jobs": _parse_flag,
    "unschedulable_grace_seconds": _parse_number(int, 0, 86_400),
    "health_port": _parse_number(int, 1, 65_535),
    "metrics_port": _parse_number(int, 1, 65_535),
    "log_format": _parse_choice("json", "text"),
    "log_level": _parse_choice("DEBUG", "INFO", "WARNING", "ERROR"),
}

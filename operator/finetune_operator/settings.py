"""The operator's configuration: environment variables into one frozen object.

The only reader of the environment. Every variable but one of Kubernetes begins with `FINETUNE_`, has a default that
works in a cluster and is documented below its field; the chart sets them from its values. A value that can't be used
ends the start with all errors at once.
"""

import os
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AliasGenerator, BeforeValidator, Field, StringConstraints, ValidationError, model_validator
from pydantic_settings import BaseSettings, EnvSettingsSource, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from finetune_api import quantities, validation


def build_variable(field: str) -> str:
    """Return the name of the variable that sets a field."""
    return "KUBERNETES_SERVICE_HOST" if field == "api_server_host" else f"FINETUNE_{field.upper()}"


def _split(value: object) -> object:
    return tuple(item.strip() for item in value.split(",") if item.strip()) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
"""A list, separated by commas in its variable."""
# The pattern of the API: a parser alone would take signs and NaN, which the API server then refuses in each pod.
Quantity = Annotated[str, StringConstraints(pattern=quantities.QUANTITY_PATTERN)]
Port = Annotated[int, Field(ge=1, le=65_535)]


class SettingsError(Exception):
    """The environment can't be used; the message names every variable at fault."""


class Settings(BaseSettings):
    """What an administrator decides."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=AliasGenerator(validation_alias=build_variable),
        populate_by_name=True,
        str_strip_whitespace=True,
    )

    trainer_image: str
    """FINETUNE_TRAINER_IMAGE: image of the trainer where a job names none; required."""
    allowed_images: Names = ()
    """FINETUNE_ALLOWED_IMAGES: patterns, separated by commas, that a job's `spec.trainer.image` must match; the default
    image is always allowed. In these patterns and those below, `*` stands for any text without a slash."""
    allowed_priority_classes: Names = ()
    """FINETUNE_ALLOWED_PRIORITY_CLASSES: patterns that `spec.placement.priorityClassName` must match; those of
    Kubernetes itself (system-…) are refused by the schema. Empty: a job may name none, as in the next two."""
    allowed_runtime_classes: Names = ()
    """FINETUNE_ALLOWED_RUNTIME_CLASSES: patterns that `spec.placement.runtimeClassName` must match."""
    allowed_service_accounts: Names = ()
    """FINETUNE_ALLOWED_SERVICE_ACCOUNTS: patterns that `spec.placement.serviceAccountName` must match: with an account
    comes its cloud identity."""
    allowed_secrets: Names = ("*",)
    """FINETUNE_ALLOWED_SECRETS: patterns that `spec.storage.secretName` and `spec.trainer.imagePullSecrets` must match;
    they are Secrets of the job's own namespace."""
    allowed_endpoints: Names = ("*",)
    """FINETUNE_ALLOWED_ENDPOINTS: patterns that the host of `spec.storage.endpointURL` must match. The API server,
    metadata services, link-local and loopback addresses are allowed only where they are named without a `*`."""
    allowed_environment: Names = ()
    """FINETUNE_ALLOWED_ENVIRONMENT: patterns of variables that `spec.trainer.env` may set, beside the harmless ones
    (HARMLESS_VARIABLES in jobs/policies/admission.py)."""
    insecure_endpoints: Names = ("*.svc", "*.svc.cluster.local")
    """FINETUNE_INSECURE_ENDPOINTS: patterns of hosts that may be reached by http://; elsewhere https:// is required."""
    pod_labels: Names = ()
    """FINETUNE_POD_LABELS: patterns of labels of a FineTuneJob that its Jobs and pods get too, such as a cost centre.
    Those of other controllers are never passed on (RESERVED_DOMAINS in jobs/builders/inherited.py)."""
    pod_annotations: Names = ()
    """FINETUNE_POD_ANNOTATIONS: the same for annotations."""
    api_server_host: str = ""
    """KUBERNETES_SERVICE_HOST: address of the API server, which Kubernetes sets in every container."""
    watched_namespaces: Names = ()
    """FINETUNE_WATCHED_NAMESPACES: names, separated by commas. Empty: the whole cluster."""
    resync_seconds: Annotated[int, Field(ge=1, le=3600)] = 120
    """FINETUNE_RESYNC_SECONDS between two comparisons of everything with the API server (a choice)."""
    workers: Annotated[int, Field(ge=1, le=256)] = 32
    """FINETUNE_WORKERS: FineTuneJobs reconciled at the same time (a choice; one is never in two workers), three of four
    of them new ones."""
    progress_seconds: Annotated[int, Field(ge=1, le=3600)] = 15
    """FINETUNE_PROGRESS_SECONDS between two requests for the progress of one running pod (a choice); the status is
    written for news only."""
    prepare_cpu: Quantity = "1"
    """FINETUNE_PREPARE_CPU of the prepare pod; less where the job's own `spec.resources.cpu` is less."""
    prepare_memory: Quantity = "4Gi"
    """FINETUNE_PREPARE_MEMORY of the prepare pod; less where the job's own `spec.resources.memory` is less."""
    prepare_deadline_seconds: Annotated[int, Field(ge=60, le=31_536_000)] = 3600
    """FINETUNE_PREPARE_DEADLINE_SECONDS of running time for one prepare attempt."""
    queue_prepare_jobs: bool = False
    """FINETUNE_QUEUE_PREPARE_JOBS puts the job's Kueue queue on the prepare Job too."""
    unschedulable_grace_seconds: Annotated[int, Field(ge=0, le=86_400)] = 45
    """FINETUNE_UNSCHEDULABLE_GRACE_SECONDS before a pod without a node makes the job Stalled: within a minute it
    is told (a choice); more where an autoscaler brings nodes, which takes minutes."""
    health_port: Port = 8080
    """FINETUNE_HEALTH_PORT serves /healthz."""
    metrics_port: Port = 9090
    """FINETUNE_METRICS_PORT serves /metrics and /readyz."""
    metrics_token_file: str = ""
    """FINETUNE_METRICS_TOKEN_FILE: /metrics asks for the bearer token in this file. Empty: for none."""
    log_format: Literal["json", "text"] = "json"
    """FINETUNE_LOG_FORMAT: json or text."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """FINETUNE_LOG_LEVEL: DEBUG, INFO, WARNING or ERROR."""

    @model_validator(mode="before")
    @classmethod
    def _leave_out_empty(cls, values: Any) -> Any:  # noqa: ANN401 - whatever was given
        """An empty list is a decision, an empty text or number is none."""
        fields = cls.model_fields.items()
        lists = {build_variable(name) for name, field in fields if field.annotation == tuple[str, ...]}
        return {key: value for key, value in values.items() if key in lists or str(value).strip()}

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read the environment in `load_settings` alone: an object made of arguments depends on nothing else."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)


def load_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from the environment.

    Raises:
        SettingsError: variables are missing or can't be used; all of them are named.
    """
    source = EnvSettingsSource(Settings, case_sensitive=True)
    source.env_vars = os.environ if environment is None else environment
    try:
        return Settings.model_validate(source())
    except ValidationError as error:
        found = validation.parse_errors(error, "", Settings)
        raise SettingsError("; ".join(str(item).removeprefix(".") for item in found)) from error

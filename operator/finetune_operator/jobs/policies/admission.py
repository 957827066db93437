"""What the administrator allows a job to name: images, classes, accounts, secrets and endpoints.

All of it stands in the operator's configuration, which the API server doesn't know, so the operator refuses the job
itself; the chart's ValidatingAdmissionPolicy says the same at admission.
"""

import ipaddress
import re
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from finetune_api.kinds.finetunejob.spec import FineTuneJobSpec
from finetune_api.kinds.pods import Placement
from finetune_api.validation import FieldError
from finetune_operator.jobs.patterns import is_allowed
from finetune_operator.settings import Settings

CLUSTER_API_HOSTS = (
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
)
HARMLESS_VARIABLES = (
    "CUBLAS_WORKSPACE_CONFIG",
    "CUDA_DEVICE_MAX_CONNECTIONS",
    "CUDA_LAUNCH_BLOCKING",
    "LANG",
    "LC_ALL",
    "MKL_NUM_THREADS",
    "NCCL_ALGO",
    "NCCL_DEBUG",
    "NCCL_DEBUG_SUBSYS",
    "NCCL_IB_DISABLE",
    "NCCL_IB_HCA",
    "NCCL_P2P_DISABLE",
    "NCCL_P2P_LEVEL",
    "NCCL_PROTO",
    "NCCL_SHM_DISABLE",
    "NCCL_SOCKET_IFNAME",
    "NVIDIA_TF32_OVERRIDE",
    "OMP_NUM_THREADS",
    "OMP_PROC_BIND",
    "OMP_WAIT_POLICY",
    "OPENBLAS_NUM_THREADS",
    "PYTORCH_ALLOC_CONF",
    "PYTORCH_CUDA_ALLOC_CONF",
    "TOKENIZERS_PARALLELISM",
    "TORCH_CPP_LOG_LEVEL",
    "TORCH_DISTRIBUTED_DEBUG",
    "TORCH_LOGS",
    "TORCH_NCCL_TRACE_BUFFER_SIZE",
    "TORCH_SHOW_CPP_STACKTRACES",
    "TRANSFORMERS_VERBOSITY",
    "TZ",
)
"""Variables that a job may always set: threads, the transport between GPUs, memory, logs, locale. By name, because most
prefixes hold a variable that loads a library (NCCL_NET_PLUGIN, OMP_TOOL_LIBRARIES, CUDA_INJECTION64_PATH), and those of
proxies, certificates and configuration files (HTTPS_PROXY, OPENSSL_CONF) turn data to other places."""
METADATA_HOSTS = ("metadata", "metadata.google.internal", "instance-data", "instance-data.ec2.internal")
"""Names of the metadata services of clouds, which hand out credentials of the node; their addresses are link-local."""
METADATA_ADDRESSES = ("100.100.100.200", "168.63.129.16")
"""Those that aren't link-local: Alibaba Cloud's and Azure's."""


def find_refusals(spec: FineTuneJobSpec, *, recorded_image: str, settings: Settings) -> list[FieldError]:
    """Return everything that the administrator does not allow.

    Args:
        recorded_image: of the attempts so far; empty before the first.
    """
    secrets = [("spec.storage.secretName", spec.storage.secret_name)] + [
        (f"spec.trainer.imagePullSecrets[{index}].name", secret.name)
        for index, secret in enumerate(spec.trainer.image_pull_secrets)
    ]
    return [
        *_check_image(spec.trainer.image, recorded_image, settings.trainer_image, settings.allowed_images),
        *_check_placement(spec.placement, settings),
        *(error for path, name in secrets for error in _check_name(path, name, "secrets", settings.allowed_secrets)),
        *_check_endpoint(spec.storage.endpoint_url, settings),
        *_check_environment([item.name for item in spec.trainer.env], settings.allowed_environment),
    ]


def _check_image(own: str, recorded: str, default_image: str, allowed: Sequence[str]) -> list[FieldError]:
    image = own or recorded
    if not image or image == default_image or is_allowed(image, allowed):
        return []
    names = ", ".join([default_image, *allowed])
    if own:
        rule = f"must match one of the images this operator allows: {names}; or leave it empty"
        return [FieldError("spec.trainer.image", own, rule)]
    rule = (
        f"must still be one of the images this operator allows: {names}; "
        "allow it until the runs that began with it have ended, or create the FineTuneJob again"
    )
    return [FieldError("status.trainerImage", recorded, rule)]


def _check_placement(placement: Placement, settings: Settings) -> Iterator[FieldError]:
    yield from _check_name(
        "spec.placement.priorityClassName",
        placement.priority_class_name,
        "priority classes",
        settings.allowed_priority_classes,
    )
    yield from _check_name(
        "spec.placement.runtimeClassName",
        placement.runtime_class_name,
        "runtime classes",
        settings.allowed_runtime_classes,
    )
    yield from _check_name(
        "spec.placement.serviceAccountName",
        placement.service_account_name,
        "service accounts",
        settings.allowed_service_accounts,
    )


def _check_name(path: str, name: str, kind: str, allowed: Sequence[str]) -> list[FieldError]:
    if not name or is_allowed(name, allowed):
        return []
    rule = f"must match one of the {kind} this operator allows: {', '.join(allowed) or 'none'}; or leave it empty"
    return [FieldError(path, name, rule)]


def _check_environment(names: Sequence[str], allowed: Sequence[str]) -> list[FieldError]:
    patterns = (*HARMLESS_VARIABLES, *allowed)
    refused = [name for name in names if not is_allowed(name, patterns)]
    if not refused:
        return []
    rule = f"must set only variables that this operator allows: {', '.join(patterns)}; leave out the others"
    return [FieldError("spec.trainer.env", ", ".join(refused), rule)]


def _check_endpoint(url: str, settings: Settings) -> list[FieldError]:
    address = urlsplit(url)
    host = (address.hostname or "").rstrip(".")
    if not host:
        return []
    errors = [f"must not be at {place}" for place in _find_forbidden_place(host, settings)]
    if not is_allowed(host, settings.allowed_endpoints):
        errors.append(f"must be at one of the hosts this operator allows: {', '.join(settings.allowed_endpoints)}")
    if address.scheme == "http" and not is_allowed(host, settings.insecure_endpoints):
        allowed = ", ".join(settings.insecure_endpoints) or "no host"
        errors.append(f"must begin with https://: without encryption this operator allows only {allowed}")
    return [FieldError("spec.storage.endpointURL", url, error) for error in errors]


def _find_forbidden_place(host: str, settings: Settings) -> Iterator[str]:
    """Say where a host is that is no object store; nothing where the administrator has named this very host."""
    if host in settings.allowed_endpoints:
        return
    if host in (*CLUSTER_API_HOSTS, settings.api_server_host):
        yield "the API server of the cluster; name the object store"
    elif host in METADATA_HOSTS:
        yield "the metadata service of a cloud; name the object store"
    elif host == "localhost" or host.endswith(".localhost"):
        yield "the pod itself; name the object store"
    else:
        yield from _find_forbidden_address(host)


def _find_forbidden_address(host: str) -> Iterator[str]:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        # The C library reads 2852039166, 0xa9fea9fe and 169.254.43518 as addresses too.
        if re.search(r"(^|\.)(0x[0-9a-f]*|[0-9]+)$", host):
            yield "an address in an unusual form; write it as four numbers from 0 to 255"
        return
    if address.is_link_local or host in METADATA_ADDRESSES:
        yield "a link-local address or another of a cloud's metadata service; name the object store"
    elif address.is_loopback or address.is_unspecified or address.is_multicast:
        yield "an address that is the pod itself or nobody's; name the object store"

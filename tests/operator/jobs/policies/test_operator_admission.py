"""What the administrator allows a job to name, and the tricks that must not get past it."""

from typing import Any

import pytest
from manifests import make_manifest

from finetune_api.kinds.finetunejob.spec import FineTuneJobSpec
from finetune_operator.jobs import patterns
from finetune_operator.jobs.policies import admission
from finetune_operator.settings import Settings

SETTINGS = Settings(trainer_image="default:1")
DIGEST = "sha256:" + "a" * 64


def _find(settings: dict[str, Any], recorded: str = "", **edits: Any) -> list[str]:
    manifest = make_manifest(**{f"spec__{path}": value for path, value in edits.items()})
    spec = FineTuneJobSpec.model_validate(manifest["spec"])
    chosen = SETTINGS.model_copy(update=settings)
    return [str(item) for item in admission.find_refusals(spec, recorded_image=recorded, settings=chosen)]


@pytest.mark.parametrize(
    ("pattern", "name", "want"),
    [
        ("registry.example.com/team/*", "registry.example.com/team/x:1", True),
        ("registry.example.com/team/*", f"registry.example.com/team/x@{DIGEST}", True),
        ("registry.example.com/team/*", f"registry.example.com/team/x:1@{DIGEST}", True),
        ("registry.example.com/team/*", "registry.example.com/team/deeper/x:1", False),
        ("registry.example.com/team/*", "registry.example.com/teams/x:1", False),
        ("registry.example.com/team/*", "registry.example.com:5000/team/x:1", False),
        ("registry.example.com/team/*", "evil.example.com/registry.example.com/team/x", False),
        ("registry.example.com/team/*", "Registry.example.com/team/x", False),
        ("registry.example.com/team/*", "user@registry.example.com/team/x", False),
        ("registry.example.com/team/*", "registryXexample.com/team/x", False),
        ("registry.example.com/*/*", "registry.example.com/team/x:1", True),
        ("registry.example.com/team/x", "registry.example.com/team/x:1", False),
        ("registry.example.com/team/x", "registry.example.com/team/x", True),
        ("registry.example.com/team/x:*", "registry.example.com/team/x:1", True),
        (f"registry.example.com/x@{DIGEST}", f"registry.example.com/x@{DIGEST}", True),
        (f"registry.example.com/x@{DIGEST}", f"registry.example.com/x@{DIGEST[:-1]}b", False),
        ("*.example.com/x:1", "registry.example.com/x:1", True),
        ("*.example.com/x:1", "evil.com/registry.example.com/x:1", False),
        ("*", "library", True),
        ("*", "registry.example.com/x", False),
        ("[abc]", "a", False),
        ("a?c", "abc", False),
        ("(a|b)", "a", False),
        ("batch-*", "batch-low", True),
        ("batch-*", "low-batch-", False),
        ("*.svc", "s3.demo.svc", True),
        ("*.svc", "s3.demo.svc.evil.com", False),
    ],
)
def test_a_pattern_matches_from_end_to_end_and_never_across_a_slash(pattern: str, name: str, want: bool) -> None:
    assert patterns.is_allowed(name, [pattern]) is want


def test_the_image_of_the_operator_needs_no_pattern() -> None:
    assert _find({}, trainer__image="default:1") == []


def test_another_image_is_refused_with_all_that_are_allowed() -> None:
    assert _find({"allowed_images": ("r/*",)}, trainer__image="other:1") == [
        "spec.trainer.image (other:1) must match one of the images this operator allows: default:1, r/*; "
        "or leave it empty"
    ]


def test_the_recorded_image_is_refused_once_nobody_allows_it_any_more() -> None:
    [found] = _find({}, recorded="old:1")
    assert found.startswith(
        "status.trainerImage (old:1) must still be one of the images this operator allows: default:1;"
    )


NAMED = {
    "priority classes": ("placement.priorityClassName", "allowed_priority_classes"),
    "runtime classes": ("placement.runtimeClassName", "allowed_runtime_classes"),
    "service accounts": ("placement.serviceAccountName", "allowed_service_accounts"),
}


@pytest.mark.parametrize("kind", NAMED)
def test_without_a_list_a_job_may_name_none_of_them(kind: str) -> None:
    path, _ = NAMED[kind]
    rule = f"must match one of the {kind} this operator allows: none; or leave it empty"
    assert _find({}, **{path.replace(".", "__"): "special"}) == [f"spec.{path} (special) {rule}"]


@pytest.mark.parametrize("kind", NAMED)
def test_what_is_listed_may_be_named(kind: str) -> None:
    path, setting = NAMED[kind]
    assert _find({setting: ("special", "other-*")}, **{path.replace(".", "__"): "other-one"}) == []


def test_secrets_can_be_limited_wherever_a_job_names_one() -> None:
    edits = {
        "storage__secretName": "admin",
        "trainer__imagePullSecrets": [{"name": "s3-pull"}, {"name": "root"}],
    }
    assert _find({}, **edits) == []
    rule = "must match one of the secrets this operator allows: s3-*; or leave it empty"
    assert _find({"allowed_secrets": ("s3-*",)}, **edits) == [
        f"spec.storage.secretName (admin) {rule}",
        f"spec.trainer.imagePullSecrets[1].name (root) {rule}",
    ]


@pytest.mark.parametrize(
    ("host", "place"),
    [
        ("kubernetes", "the API server of the cluster"),
        ("kubernetes.default.svc", "the API server of the cluster"),
        ("KUBERNETES.default", "the API server of the cluster"),
        ("kubernetes.default.svc.cluster.local.", "the API server of the cluster"),
        ("10.96.0.1", "the API server of the cluster"),
        ("169.254.169.254", "a link-local address or another of a cloud's metadata service"),
        ("169.254.170.23", "a link-local address or another of a cloud's metadata service"),
        ("100.100.100.200", "a link-local address or another of a cloud's metadata service"),
        ("metadata.google.internal", "the metadata service of a cloud"),
        ("localhost", "the pod itself"),
        ("s3.localhost", "the pod itself"),
        ("127.0.0.1", "an address that is the pod itself or nobody's"),
        ("224.0.0.1", "an address that is the pod itself or nobody's"),
        ("0.0.0.0", "an address that is the pod itself or nobody's"),  # noqa: S104 - refused, not bound
        ("2852039166", "an address in an unusual form"),
        ("0xa9fea9fe", "an address in an unusual form"),
        ("0xA9.254.169.254", "an address in an unusual form"),
        ("169.254.43518", "an address in an unusual form"),
        ("0251.0376.0251.0376", "an address in an unusual form"),
    ],
)
def test_an_endpoint_that_is_no_object_store_is_refused_however_it_is_written(host: str, place: str) -> None:
    url = f"https://{host}:443"
    settings: dict[str, Any] = {"api_server_host": "10.96.0.1"}
    [found] = _find(settings, storage__endpointURL=url)
    assert found.startswith(f"spec.storage.endpointURL ({url}) must not be at {place}; ")


@pytest.mark.parametrize("url", ["https://169.254.169.254", "https://kubernetes.default.svc", "https://localhost:9000"])
def test_an_administrator_who_names_the_very_host_allows_it(url: str) -> None:
    host = url.removeprefix("https://").partition(":")[0]
    assert _find({"allowed_endpoints": (host,)}, storage__endpointURL=url) == []


@pytest.mark.parametrize("url", ["", "https://s3.example.com", "https://10.0.0.5:9000", "http://s3.demo.svc:8333"])
def test_an_object_store_is_allowed(url: str) -> None:
    assert _find({}, storage__endpointURL=url) == []


def test_the_hosts_can_be_limited() -> None:
    settings = {"allowed_endpoints": ("*.example.com",)}
    assert _find(settings, storage__endpointURL="https://s3.example.com") == []
    assert _find(settings, storage__endpointURL="https://s3.example.com.evil.com") == [
        "spec.storage.endpointURL (https://s3.example.com.evil.com) must be at one of the hosts this operator allows: "
        "*.example.com"
    ]


def test_all_that_is_wrong_with_an_endpoint_is_said_at_once() -> None:
    url = "http://169.254.169.254"
    assert _find({"allowed_endpoints": ("s3.example.com",)}, storage__endpointURL=url) == [
        f"spec.storage.endpointURL ({url}) must not be at a link-local address or another of a cloud's metadata "
        "service; name the object store",
        f"spec.storage.endpointURL ({url}) must be at one of the hosts this operator allows: s3.example.com",
        f"spec.storage.endpointURL ({url}) must begin with https://: without encryption this operator allows only "
        "*.svc, *.svc.cluster.local",
    ]


REFUSED_VARIABLES = [
    "HTTP_PROXY",
    "https_proxy",
    "NO_PROXY",
    "ALL_PROXY",
    "AWS_CA_BUNDLE",
    "AWS_CONFIG_FILE",
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "OPENSSL_CONF",
    "NVIDIA_VISIBLE_DEVICES",
    "NVIDIA_DRIVER_CAPABILITIES",
    "CUDA_VISIBLE_DEVICES",
    "CUDA_INJECTION64_PATH",
    "NCCL_NET_PLUGIN",
    "NCCL_TUNER_PLUGIN",
    "NCCL_PROFILER_PLUGIN",
    "OMP_TOOL_LIBRARIES",
    "KMP_DUMP_LIBRARIES",
    "MALLOC_CONF",
    "GLIBC_TUNABLES",
    "HF_HUB_OFFLINE",
    "HF_ENDPOINT",
    "HOME",
    "TMPDIR",
    "PATH",
    "TORCH_EXTENSIONS_DIR",
    "TORCHINDUCTOR_CACHE_DIR",
    "TRITON_CACHE_DIR",
    "TRITON_PTXAS_PATH",
    "BNB_CUDA_VERSION",
    "ATEN_CPU_CAPABILITY",
    "nccl_debug",
    "NCCL_DEBUG_FILE",
    "XNCCL_DEBUG",
]


@pytest.mark.parametrize("name", REFUSED_VARIABLES)
def test_a_variable_that_nobody_has_allowed_is_refused(name: str) -> None:
    [found] = _find({}, trainer__env=[{"name": "NCCL_DEBUG", "value": "INFO"}, {"name": name, "value": "x"}])
    allowed = ", ".join(admission.HARMLESS_VARIABLES)
    assert found == (
        f"spec.trainer.env ({name}) must set only variables that this operator allows: {allowed}; leave out the others"
    )


def test_an_administrator_allows_more_variables_by_name_or_pattern() -> None:
    env = [{"name": name, "value": "x"} for name in ("WANDB_MODE", "HTTPS_PROXY", "HTTP_PROXY")]
    [found] = _find({"allowed_environment": ("WANDB_*", "HTTPS_PROXY")}, trainer__env=env)
    assert found.startswith("spec.trainer.env (HTTP_PROXY) must set only variables that this operator allows: ")
    assert found.endswith("TZ, WANDB_*, HTTPS_PROXY; leave out the others")


def test_every_harmless_variable_may_be_set_and_all_of_them_fit_into_a_message() -> None:
    assert _find({}, trainer__env=[{"name": name, "value": "x"} for name in admission.HARMLESS_VARIABLES]) == []
    assert len(", ".join(admission.HARMLESS_VARIABLES)) < 700

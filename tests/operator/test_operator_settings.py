"""The environment: every variable, its default, and all faults at once."""

import pytest

from finetune_api import wording
from finetune_operator import settings
from finetune_operator.settings import Settings, SettingsError


def test_defaults_need_only_the_trainer_image() -> None:
    assert settings.load_settings({"FINETUNE_TRAINER_IMAGE": "trainer:1"}) == Settings(trainer_image="trainer:1")


def test_every_setting_is_read() -> None:
    loaded = settings.load_settings(
        {
            "FINETUNE_TRAINER_IMAGE": "trainer:1",
            "FINETUNE_ALLOWED_IMAGES": "a/*, b:1",
            "FINETUNE_ALLOWED_PRIORITY_CLASSES": "batch-*",
            "FINETUNE_ALLOWED_RUNTIME_CLASSES": "nvidia",
            "FINETUNE_ALLOWED_SERVICE_ACCOUNTS": "trainer",
            "FINETUNE_ALLOWED_SECRETS": "s3-*",
            "FINETUNE_ALLOWED_ENDPOINTS": "",
            "FINETUNE_ALLOWED_ENVIRONMENT": "WANDB_*",
            "FINETUNE_POD_LABELS": "cost-center",
            "FINETUNE_POD_ANNOTATIONS": "example.com/*",
            "FINETUNE_INSECURE_ENDPOINTS": "*",
            "KUBERNETES_SERVICE_HOST": "10.96.0.1",
            "FINETUNE_WATCHED_NAMESPACES": "one,two",
            "FINETUNE_RESYNC_SECONDS": "60",
            "FINETUNE_WORKERS": "2",
            "FINETUNE_PREPARE_CPU": "500m",
            "FINETUNE_PREPARE_MEMORY": "1Gi",
            "FINETUNE_PREPARE_DEADLINE_SECONDS": "600",
            "FINETUNE_QUEUE_PREPARE_JOBS": "true",
            "FINETUNE_UNSCHEDULABLE_GRACE_SECONDS": "0",
            "FINETUNE_HEALTH_PORT": "1",
            "FINETUNE_METRICS_PORT": "2",
            "FINETUNE_METRICS_TOKEN_FILE": "/run/token",
            "FINETUNE_LOG_FORMAT": "text",
            "FINETUNE_LOG_LEVEL": "DEBUG",
        }
    )
    assert loaded == Settings(
        trainer_image="trainer:1",
        allowed_images=("a/*", "b:1"),
        allowed_priority_classes=("batch-*",),
        allowed_runtime_classes=("nvidia",),
        allowed_service_accounts=("trainer",),
        allowed_secrets=("s3-*",),
        allowed_endpoints=(),
        allowed_environment=("WANDB_*",),
        pod_labels=("cost-center",),
        pod_annotations=("example.com/*",),
        insecure_endpoints=("*",),
        api_server_host="10.96.0.1",
        watched_namespaces=("one", "two"),
        resync_seconds=60.0,
        workers=2,
        prepare_cpu="500m",
        prepare_memory="1Gi",
        prepare_deadline_seconds=600,
        queue_prepare_jobs=True,
        unschedulable_grace_seconds=0,
        health_port=1,
        metrics_port=2,
        metrics_token_file="/run/token",
        log_format="text",
        log_level="DEBUG",
    )


def test_all_faults_of_the_environment_are_told_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        settings.load_settings(
            {
                "FINETUNE_WORKERS": "many",
                "FINETUNE_QUEUE_PREPARE_JOBS": "perhaps",
                "FINETUNE_PREPARE_MEMORY": "much",
                "FINETUNE_RESYNC_SECONDS": "0",
                "FINETUNE_LOG_LEVEL": "LOUD",
            }
        )
    assert str(caught.value) == (
        "FINETUNE_TRAINER_IMAGE is missing; it must be given; "
        "FINETUNE_RESYNC_SECONDS (0) must be at least 1; "
        "FINETUNE_WORKERS (many) must be a whole number; "
        'FINETUNE_PREPARE_MEMORY (much) must be a Kubernetes quantity such as "4", "500m" or "16Gi"; '
        "FINETUNE_QUEUE_PREPARE_JOBS (perhaps) must be true or false; "
        "FINETUNE_LOG_LEVEL (LOUD) must be one of DEBUG, INFO, WARNING, ERROR"
    )


@pytest.mark.parametrize("text", ["4GG", "NaN", "-1", "Infinity", "Gi", "1 Gi", "4gi", "+1", "1e3"])
def test_what_is_no_quantity_is_refused_with_one_sentence(text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings.load_settings({"FINETUNE_TRAINER_IMAGE": "trainer:1", "FINETUNE_PREPARE_CPU": text})
    shown = wording.show_value(text)
    assert str(caught.value) == (
        f'FINETUNE_PREPARE_CPU ({shown}) must be a Kubernetes quantity such as "4", "500m" or "16Gi"'
    )

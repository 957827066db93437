"""The single rules and edges as tables: back-off, suspension, settings, observation, merge patches, texts from pods."""

from datetime import UTC, datetime, timedelta
from typing import Any

import cluster_objects as objects
import pytest

from finetune_api.kinds.finetunejob.status import Reason
from finetune_operator import settings
from finetune_operator.jobs import observe
from finetune_operator.jobs.policies import deadlines, retries, suspend, ttl
from finetune_operator.jobs.policies.suspend import Step
from finetune_operator.runtime import logs, merge_patch
from finetune_operator.runtime.kind import Children
from finetune_operator.settings import Settings, SettingsError

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("failures", "seconds"),
    [(1, 10), (2, 20), (3, 40), (4, 80), (5, 160), (6, 320), (7, 360), (8, 360), (20, 360)],
)
def test_back_off_doubles_to_six_minutes(failures: int, seconds: int) -> None:
    waits = [retries.compute_backoff_seconds(failures, f"uid/{attempt}") for attempt in range(200)]
    assert all(seconds * 0.9 <= wait <= seconds * 1.1 for wait in waits)
    assert max(waits) - min(waits) > seconds * 0.15, "the jitter is used"


def test_back_off_is_the_same_after_a_restart() -> None:
    times = {retries.compute_retry_time(NOON, 3, is_counted=True, uid="u", attempt=3) for _ in range(3)}
    assert len(times) == 1


def test_an_uncounted_end_waits_ten_seconds_whatever_failed_before() -> None:
    assert retries.compute_retry_time(NOON, 7, is_counted=False, uid="u", attempt=8) == NOON + timedelta(seconds=10)


@pytest.mark.parametrize(
    ("failed", "limit", "want"), [(0, 0, False), (1, 0, True), (1, 1, False), (2, 1, True), (4, 3, True)]
)
def test_failures_beyond_the_limit_are_spent(failed: int, limit: int, want: bool) -> None:
    assert retries.is_spent(failed, limit) is want


@pytest.mark.parametrize(
    ("causes", "want"),
    [
        (["OutOfMemory"], Reason.OUT_OF_MEMORY),
        (["OutOfMemory", "OutOfMemory"], Reason.OUT_OF_MEMORY),
        (["Internal", "OutOfMemory"], Reason.BACKOFF_LIMIT_EXCEEDED),
    ],
)
def test_the_final_reason_is_the_cause_if_it_was_always_the_same(causes: list[str], want: Reason) -> None:
    assert retries.decide_final_reason(causes, Reason.OUT_OF_MEMORY) is want


@pytest.mark.parametrize(
    ("wanted", "condemned", "job", "deleting", "want"),
    [
        (False, False, False, False, Step.GO_ON),
        (False, False, True, False, Step.GO_ON),
        (False, False, True, True, Step.GO_ON),
        (True, False, True, False, Step.STOP),
        (True, False, True, True, Step.WAIT),
        (True, False, False, False, Step.HOLD),
        (True, True, True, False, Step.STOP),
        (True, True, True, True, Step.WAIT),
        (True, True, False, False, Step.HOLD),
        (False, True, True, False, Step.STOP),
        (False, True, True, True, Step.WAIT),
        (False, True, False, False, Step.GO_ON),
    ],
)
def test_every_case_of_suspension(wanted: bool, condemned: bool, job: bool, deleting: bool, want: Step) -> None:
    step = suspend.decide_step(is_wanted=wanted, is_stopping=condemned, has_job=job, is_job_deleting=deleting)
    assert step is want


@pytest.mark.parametrize(("seconds", "want"), [(0, 0), (1.9, 1), (-5, 0), (86_400, 86_400)])
def test_no_duration_is_negative(seconds: float, want: int) -> None:
    assert deadlines.compute_elapsed_seconds(NOON, NOON + timedelta(seconds=seconds)) == want


def test_no_beginning_is_no_duration() -> None:
    assert deadlines.compute_elapsed_seconds(None, NOON) == 0


@pytest.mark.parametrize(("left", "pending", "want"), [(100, 60, 160), (0, 60, 61), (-5, 60, 61)])
def test_the_jobs_own_limit_leaves_time_to_wait(left: int, pending: int, want: int) -> None:
    assert deadlines.compute_job_deadline_seconds(left, pending) == want


def test_only_jobs_with_another_ttl_are_changed() -> None:
    assert ttl.find_changes([("a", "1", None), ("b", "2", 5), ("c", "3", 6)], 5) == [("a", "1"), ("c", "3")]


# Settings.


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
            {"FINETUNE_WORKERS": "many", "FINETUNE_QUEUE_PREPARE_JOBS": "yes", "FINETUNE_PREPARE_MEMORY": "much"}
        )
    assert str(caught.value) == (
        "FINETUNE_WORKERS (many) must be a number from 1 to 256; "
        "FINETUNE_PREPARE_MEMORY (much) must be a Kubernetes quantity such as 1 or 4Gi; "
        "FINETUNE_QUEUE_PREPARE_JOBS (yes) must be true or false; "
        "FINETUNE_TRAINER_IMAGE is missing; it must name the trainer's image"
    )


@pytest.mark.parametrize("text", ["4GG", "NaN", "-1", "Infinity", "Gi", "1 Gi", "4gi", "+1", "1e3"])
def test_what_is_no_quantity_is_refused_with_one_sentence(text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings.load_settings({"FINETUNE_TRAINER_IMAGE": "trainer:1", "FINETUNE_PREPARE_CPU": text})
    assert str(caught.value) == f"FINETUNE_PREPARE_CPU ({text}) must be a Kubernetes quantity such as 1 or 4Gi"


# Observation.


def test_a_container_that_never_ran_has_no_times() -> None:
    pod = {
        "metadata": {"name": "p", "creationTimestamp": "2026-03-01T12:00:00Z"},
        "status": {
            "phase": "Failed",
            "containerStatuses": [
                {
                    "name": "trainer",
                    "state": {"terminated": {"exitCode": 137, "startedAt": None, "finishedAt": "1970-01-01T00:00:00Z"}},
                }
            ],
        },
    }
    [found] = observe.observe_children("u", Children(pods=[pod])).pods
    assert (found.started_at, found.finished_at, found.exit_code) == (None, None, 137)


def test_a_sidecars_state_is_not_the_trainers() -> None:
    state = {"terminated": {"exitCode": 65}}
    pod = {
        "metadata": {"name": "p", "creationTimestamp": "2026-03-01T12:00:00Z"},
        "status": {"phase": "Running", "containerStatuses": [{"name": "istio-proxy", "state": state}]},
    }
    [found] = observe.observe_children("u", Children(pods=[pod])).pods
    assert found.exit_code is None


def test_the_newest_refusal_of_a_pod_counts() -> None:
    job = {"metadata": {"name": "j", "uid": "1"}}
    events = [
        {"reason": "FailedCreate", "message": text, "lastTimestamp": moment, "involvedObject": {"uid": uid}}
        for text, moment, uid in [
            ("old", "2026-03-01T12:00:00Z", "1"),
            ("new", "2026-03-01T12:05:00Z", "1"),
            ("other", "2026-03-01T12:09:00Z", "2"),
        ]
    ]
    assert observe.observe_children("u", Children(jobs=[job], events=events)).jobs[0].create_error == "new"


def test_a_status_that_cannot_be_ours_is_an_error_not_a_decision() -> None:
    with pytest.raises(ValueError, match="phase"):
        observe.observe_job(objects.make_job(stored_status={"phase": "Dancing"}))


# Merge patches.


@pytest.mark.parametrize(
    ("old", "new", "want"),
    [
        ({}, {}, {}),
        ({"a": 1}, {"a": 1}, {}),
        ({"a": 1}, {"a": 2}, {"a": 2}),
        ({"a": 1}, {}, {"a": None}),
        ({}, {"a": 1}, {"a": 1}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1}}, {"a": {"c": None}}),
        ({"a": {"b": 1}}, {"a": {"b": 1}}, {}),
        ({"a": [1, 2]}, {"a": [1]}, {"a": [1]}),
        ({"a": {"b": {"c": 1}}}, {"a": {"b": {"c": 2}}}, {"a": {"b": {"c": 2}}}),
        ({"a": {"b": 1}}, {"a": 5}, {"a": 5}),
    ],
)
def test_merge_patches_hold_just_the_difference(old: Any, new: Any, want: Any) -> None:
    assert merge_patch.build_merge_patch(old, new) == want


# Texts from pods.


def test_texts_from_pods_show_no_secret_and_no_control_character() -> None:
    assert logs.scrub_text("secret_access_key=abc\nforged\x1b[31m") == r"secret_access_key=***\nforged\x1b[31m"

"""The child Job of one attempt.

One attempt is one Job with `backoffLimit: 0`: failures that count end it and the operator decides; disruptions are
ignored by `podFailurePolicy` and replaced inside the same Job, which keeps its place in a queue. Name, labels and owner
are functions of the FineTuneJob and the attempt, so that creating twice is impossible.
"""

from collections.abc import Sequence
from typing import Any

from finetune_api import exits, group, names, run
from finetune_api.kinds.finetunejob.spec import FineTuneJobSpec
from finetune_api.run import JobIdentity, PreparedReference, Stage
from finetune_operator.jobs.builders import pod, run_config
from finetune_operator.jobs.builders.inherited import Inherited
from finetune_operator.settings import Settings

Manifest = dict[str, Any]

MANAGER = "finetune-operator"
MANAGER_LABEL = "app.kubernetes.io/managed-by"


def build_job(
    identity: JobIdentity,
    spec: FineTuneJobSpec,
    stage: Stage,
    *,
    image: str,
    prepared: PreparedReference | None,
    deadline_seconds: int,
    grace_seconds: int,
    settings: Settings,
    inherited: Inherited,
) -> Manifest:
    """Build the Job of one attempt.

    Args:
        identity: the FineTuneJob and the number of the attempt within the stage.
        spec: the FineTuneJob's spec with all defaults.
        stage: prepare or train.
        image: of the trainer.
        prepared: output of the prepare stage; for stage train.
        deadline_seconds: the Job's own limit, waiting included.
        grace_seconds: what its pod gets to end after it was told to.
        settings: resources and queueing of the prepare stage.
        inherited: labels and annotations of the FineTuneJob for Job and pod; ours go first.

    Raises:
        ConfigError: the RunConfig is too long for an annotation.
    """
    labels = {**inherited.labels, **build_labels(identity, stage)}
    config = run_config.build_run_config(identity, stage, spec, image, prepared)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": names.build_child_name(identity.name, identity.uid, stage, identity.attempt),
            "namespace": identity.namespace,
            "labels": labels | _build_queue_label(spec, stage, settings),
            **({"annotations": dict(inherited.annotations)} if inherited.annotations else {}),
            "ownerReferences": [_build_owner(identity)],
        },
        "spec": {
            "parallelism": 1,
            "completions": 1,
            "backoffLimit": 0,
            "activeDeadlineSeconds": deadline_seconds,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {"rules": _build_failure_rules()},
            "template": {
                "metadata": {
                    "labels": labels,
                    "annotations": {**inherited.annotations, group.ANNOTATION_RUN_CONFIG: config},
                },
                "spec": pod.build_pod_spec(spec, stage, image, settings, grace_seconds),
            },
        },
    }


def build_labels(identity: JobIdentity, stage: Stage) -> dict[str, str]:
    """Build the labels of Job and pod. Not app.kubernetes.io/instance: Argo CD would take the child for its own."""
    return {
        group.LABEL_JOB: identity.name,
        group.LABEL_UID: identity.uid,
        group.LABEL_STAGE: stage.value,
        group.LABEL_ATTEMPT: str(identity.attempt),
        "app.kubernetes.io/name": "finetune-trainer",
        "app.kubernetes.io/component": stage.value,
        MANAGER_LABEL: MANAGER,
        "app.kubernetes.io/part-of": MANAGER,
    }


def _build_queue_label(spec: FineTuneJobSpec, stage: Stage, settings: Settings) -> dict[str, str]:
    is_queued = spec.placement.queue_name and (stage is Stage.TRAIN or settings.queue_prepare_jobs)
    return {group.QUEUE_LABEL: spec.placement.queue_name} if is_queued else {}


def _build_owner(identity: JobIdentity) -> Manifest:
    return {
        "apiVersion": group.API_VERSION,
        "kind": group.KIND,
        "name": identity.name,
        "uid": identity.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def _build_failure_rules() -> list[Manifest]:
    """In order, the first match wins; whatever matches none counts, and with backoffLimit 0 the Job has failed."""
    return [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        _build_exit_code_rule("FailJob", exits.FINAL_EXIT_CODES),
        _build_exit_code_rule("Ignore", exits.IGNORED_EXIT_CODES),
    ]


def _build_exit_code_rule(action: str, codes: Sequence[int]) -> Manifest:
    values = sorted(int(code) for code in codes)
    return {
        "action": action,
        "onExitCodes": {"containerName": run.CONTAINER_NAME, "operator": "In", "values": values},
    }

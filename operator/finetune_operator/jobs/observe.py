"""Cluster objects as the API server gave them -> frozen facts the reconciler decides on.

Pure: gets dicts, calls nobody. Whatever a decision reads about a FineTuneJob, a Job or a pod stands in one of these
classes; the fields of Kubernetes are spelled here and in the builders alone. The FineTuneJob's status is read
leniently: a newer operator may have written fields this one doesn't know.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from finetune_api.kinds import status_fields
from finetune_api.kinds.finetunejob.status import FineTuneJobStatus
from finetune_api.run import CONTAINER_NAME
from finetune_operator.jobs import child_events
from finetune_operator.jobs.child_events import StartError
from finetune_operator.runtime.kind import Answer, Children, Key, Refusal

Manifest = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class FineTuneJob:
    """The object a user applied, as it was read for this pass."""

    namespace: str
    name: str
    uid: str
    generation: int
    resource_version: str
    is_deleting: bool
    spec: Manifest
    status: FineTuneJobStatus
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ChildJob:
    """A child Job; `create_error` is the newest FailedCreate Event, the only place that says why pods can't be made."""

    name: str
    uid: str
    is_owned: bool = True
    is_deleting: bool = False
    is_suspended: bool = False
    suspended_message: str = ""
    is_complete: bool = False
    is_failed: bool = False
    failed_reason: str = ""
    failed_message: str = ""
    created_at: datetime | None = None
    finished_at: datetime | None = None
    active_deadline_seconds: int | None = None
    ttl_seconds: int | None = None
    create_error: str = ""

    @property
    def is_finished(self) -> bool:
        """Complete or Failed: both mean that all pods are terminal (Kubernetes 1.31 and later)."""
        return self.is_complete or self.is_failed


STUCK_AFTER = timedelta(minutes=5)
"""After its grace period has passed, a pod that is still there can't be removed (a choice)."""


@dataclass(frozen=True, slots=True)
class ChildPod:
    """A pod of a child Job; the container fields are those of the trainer's container.

    Attributes:
        address: IP; empty: none yet.
        job_uid: of the Job that made it; empty where none of ours did.
        job_name: of the Job that controls it, or that made it and was deleted without it.
        start_error: what the kubelet failed at last, where its Events were read.
    """

    name: str
    uid: str
    job_uid: str
    phase: str
    created_at: datetime
    job_name: str = ""
    removal_due_at: datetime | None = None
    reason: str = ""
    message: str = ""
    disruption: str = ""
    is_gated: bool = False
    unschedulable: str = ""
    unschedulable_since: datetime | None = None
    waiting_reason: str = ""
    waiting_message: str = ""
    started_at: datetime | None = None
    finished_at: datetime | None = None
    exit_code: int | None = None
    is_oom_killed: bool = False
    termination_text: str = ""
    start_error: StartError | None = None
    address: str = ""

    @property
    def is_terminal(self) -> bool:
        return self.phase in ("Succeeded", "Failed")

    def is_stuck(self, now: datetime) -> bool:
        """Tell whether it should be gone long since: its node doesn't answer, and its status tells nothing any more."""
        return not self.is_terminal and self.removal_due_at is not None and now > self.removal_due_at + STUCK_AFTER

    def is_starting(self) -> bool:
        """Tell whether it has a node and no container that says why it doesn't run."""
        # Only a kubelet says why a container waits.
        has_node = bool(self.waiting_reason) or not (self.unschedulable or self.is_gated)
        is_silent = self.waiting_reason in ("", "ContainerCreating", "PodInitializing")
        return has_node and is_silent and not self.is_terminal and self.started_at is None

    def describe_stuck(self, now: datetime) -> str:
        """Say of a pod that can't be removed what to do about it; empty of any other."""
        if self.removal_due_at is None or not self.is_stuck(now):
            return ""
        since = status_fields.build_time(self.removal_due_at)
        return f"pod {self.name} should be gone since {since}; remove its node or taint it out-of-service"

    def is_running(self, now: datetime) -> bool:
        """Tell whether its container runs, as far as anybody can know."""
        return self.started_at is not None and self.find_end(now) is None and not self.is_terminal

    def find_end(self, now: datetime) -> datetime | None:
        """Return when its container ended; on a lost node, when it had to, at the latest."""
        return self.removal_due_at if self.finished_at is None and self.is_stuck(now) else self.finished_at


@dataclass(frozen=True, slots=True)
class Observed:
    """All children of one FineTuneJob, read from the API server in this pass."""

    jobs: tuple[ChildJob, ...] = ()
    pods: tuple[ChildPod, ...] = ()
    refusals: Mapping[str, Refusal] = field(default_factory=dict)
    peers: tuple[Key, ...] = ()
    answer: Answer | None = None

    def find_refusal(self, name: str) -> Refusal | None:
        """Return why the Job of that name could not be made the last time."""
        return self.refusals.get(name)

    def find_job(self, name: str) -> ChildJob | None:
        """Return the child Job of that name."""
        return next((job for job in self.jobs if job.name == name), None)

    def list_pods(self, job_uid: str) -> tuple[ChildPod, ...]:
        """Return the pods of a Job, oldest first."""
        return tuple(sorted((pod for pod in self.pods if pod.job_uid == job_uid), key=lambda pod: pod.created_at))


_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00Z")


def observe_job(manifest: Manifest) -> FineTuneJob:
    """Read a FineTuneJob.

    Raises:
        ValueError: its status isn't one of ours.
    """
    metadata = manifest["metadata"]
    return FineTuneJob(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        generation=metadata.get("generation", 0),
        resource_version=metadata["resourceVersion"],
        is_deleting="deletionTimestamp" in metadata,
        spec=manifest.get("spec", {}),
        status=FineTuneJobStatus.model_validate(manifest.get("status", {}), extra="ignore"),
        labels=metadata.get("labels") or {},
        annotations=metadata.get("annotations") or {},
    )


def observe_children(uid: str, children: Children) -> Observed:
    """Read the children of the FineTuneJob with that uid."""
    jobs = {item["metadata"]["uid"]: item for item in children.jobs}
    return Observed(
        jobs=tuple(_observe_child(item, uid, children.events) for item in children.jobs),
        pods=tuple(_observe_pod(item, jobs, children.events) for item in children.pods),
        refusals=children.refusals,
        peers=tuple(children.peers),
        answer=children.answer,
    )


def _observe_child(manifest: Manifest, uid: str, events: Sequence[Manifest]) -> ChildJob:
    metadata, spec, job_status = manifest["metadata"], manifest.get("spec", {}), manifest.get("status") or {}
    conditions = _Conditions(manifest)
    complete, failed, suspended = (conditions.find(name) for name in ("Complete", "Failed", "Suspended"))
    ended = complete or failed
    return ChildJob(
        name=metadata["name"],
        uid=metadata["uid"],
        is_owned=find_controller_uid(manifest) == uid,
        is_deleting="deletionTimestamp" in metadata,
        is_suspended=bool(spec.get("suspend")),
        suspended_message=suspended.get("message", ""),
        is_complete=bool(complete),
        is_failed=bool(failed),
        failed_reason=failed.get("reason", ""),
        failed_message=failed.get("message", ""),
        created_at=_read_time(metadata.get("creationTimestamp")),
        finished_at=_read_time(ended.get("lastTransitionTime")),
        active_deadline_seconds=spec.get("activeDeadlineSeconds"),
        ttl_seconds=spec.get("ttlSecondsAfterFinished"),
        create_error=child_events.find_create_error(metadata["uid"], _read_time(job_status.get("startTime")), events),
    )


def _observe_pod(manifest: Manifest, jobs: Mapping[str, Manifest], events: Sequence[Manifest]) -> ChildPod:
    metadata, pod_status = manifest["metadata"], manifest.get("status", {})
    conditions = _Conditions(manifest)
    scheduled = conditions.find("PodScheduled", "False")
    gated = scheduled.get("reason") == "SchedulingGated"
    container = _find_container(pod_status)
    state = container.get("state", {})
    controller_uid = find_controller_uid(manifest)
    ended, running, waiting = (state.get(key, {}) for key in ("terminated", "running", "waiting"))
    return ChildPod(
        name=metadata["name"],
        uid=metadata.get("uid", ""),
        job_uid=controller_uid if is_made_by(manifest, jobs.get(controller_uid)) else "",
        phase=pod_status.get("phase", "Pending"),
        created_at=_read_time(metadata.get("creationTimestamp")) or _EPOCH,
        job_name=_find_job_name(manifest),
        removal_due_at=_read_time(metadata.get("deletionTimestamp")),
        reason=pod_status.get("reason", ""),
        message=pod_status.get("message", ""),
        disruption=conditions.find("DisruptionTarget").get("message", "disrupted")
        if conditions.find("DisruptionTarget")
        else "",
        is_gated=gated,
        unschedulable="" if gated else scheduled.get("message", ""),
        unschedulable_since=_read_time(scheduled.get("lastTransitionTime")),
        waiting_reason=waiting.get("reason", ""),
        waiting_message=waiting.get("message", ""),
        started_at=_read_time(ended.get("startedAt") or running.get("startedAt")),
        finished_at=_read_time(ended.get("finishedAt")),
        exit_code=ended.get("exitCode"),
        is_oom_killed=ended.get("reason") == "OOMKilled",
        termination_text=ended.get("message", ""),
        start_error=child_events.find_start_error(metadata.get("uid", ""), events),
        address=pod_status.get("podIP", ""),
    )


def is_made_by(manifest: Manifest, job: Manifest | None) -> bool:
    """Tell whether a pod may be one that the Job which controls it made: by its name and what its template says.

    Whoever may create pods can give one a Job as its controller; what it reports is not believed where it shows.
    Without the Job there is nothing to compare with.
    """
    if job is None:
        return True
    metadata, template = manifest["metadata"], (job.get("spec", {}).get("template") or {}).get("metadata") or {}
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    return (
        metadata["name"].startswith(job["metadata"]["name"])
        and (template.get("labels") or {}).items() <= labels.items()
        and (template.get("annotations") or {}).items() <= annotations.items()
    )


def _find_job_name(manifest: Manifest) -> str:
    owner = find_controller(manifest)
    if not owner:
        # Deleted with --cascade=orphan, a Job leaves its pods running: without an owner, but with its label.
        return str((manifest["metadata"].get("labels") or {}).get("batch.kubernetes.io/job-name", ""))
    return str(owner.get("name", "")) if owner.get("kind") == "Job" else ""


def _find_container(pod_status: Manifest) -> Manifest:
    containers = pod_status.get("containerStatuses", [])
    return next((item for item in containers if item.get("name") == CONTAINER_NAME), {})


@dataclass(frozen=True, slots=True)
class _Conditions:
    manifest: Manifest
    empty: Manifest = field(default_factory=dict)

    def find(self, condition_type: str, value: str = "True") -> Manifest:
        """Return the condition of that type and status, or an empty one."""
        conditions = self.manifest.get("status", {}).get("conditions") or []
        for item in conditions:
            if item.get("type") == condition_type and item.get("status") == value:
                return dict(item)
        return self.empty


def find_controller_uid(manifest: Manifest) -> str:
    """Return the uid of the object that controls this one; empty if there is none."""
    return str(find_controller(manifest).get("uid", ""))


def find_controller(manifest: Manifest) -> Manifest:
    """Return the reference to the object that controls this one; empty if there is none."""
    owners = manifest["metadata"].get("ownerReferences") or []
    return next((owner for owner in owners if owner.get("controller")), {})


def _read_time(text: str | None) -> datetime | None:
    """Read a time of the API server. Containers that never ran carry the zero time of Go or of Unix."""
    if not text:
        return None
    moment = status_fields.parse_time(text)
    return moment if moment - _EPOCH > timedelta(days=1) else None

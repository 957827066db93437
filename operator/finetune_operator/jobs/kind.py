"""FineTuneJobs as a kind of the runtime: what of them is read, decided and counted."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from finetune_api import group, names
from finetune_api.kinds import status_fields
from finetune_api.kinds.finetunejob.status import FineTuneJobStatus, Phase
from finetune_operator.jobs import observe, reconcile, reports
from finetune_operator.jobs.attempts import deadlines
from finetune_operator.jobs.builders import job as job_builder
from finetune_operator.jobs.metrics import JobFacts, JobMetrics
from finetune_operator.jobs.reports import Known
from finetune_operator.runtime.kind import Children, Key
from finetune_operator.runtime.metrics import Metrics
from finetune_operator.runtime.plan import Manifest, Plan
from finetune_operator.runtime.resources import Resource
from finetune_operator.settings import Settings

RESOURCE = Resource(group.GROUP, group.VERSION, group.KIND, group.PLURAL)
LISTED_FIELDS = (
    *("spec.output.uri", "spec.method.kind", "spec.placement.queueName"),
    *("status.phase", "status.observedGeneration", "status.pendingSince", "status.progress.percent"),
)
FINAL_PHASES = frozenset({Phase.SUCCEEDED, Phase.FAILED})


class FineTuneJobs:
    """The kind FineTuneJob; satisfies `runtime.kind.Kind`, where each method is explained."""

    resource = RESOURCE
    owner_label = group.LABEL_JOB
    uid_label = group.LABEL_UID
    listed_fields = LISTED_FIELDS
    unfinished_selector = ",".join(f"status.phase!={phase}" for phase in sorted(FINAL_PHASES))

    def __init__(
        self, settings: Settings, metrics: Metrics, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._settings = settings
        self._metrics = JobMetrics(metrics, clock)

    def list_expected_jobs(self, manifest: Manifest) -> Sequence[str] | None:
        # An attempt stands in the status before its Job is made: without one there is nothing to read.
        attempts = (manifest.get("status") or {}).get("attempts") or []
        if not attempts:
            return None
        return [item["job"] for item in attempts[-1:] if "endTime" not in item]

    def list_unexplained(self, children: Children, now: datetime) -> Sequence[str]:
        found = observe.observe_children("", children)
        with_pods = {pod.job_uid for pod in found.pods}
        due = now - timedelta(seconds=deadlines.EVENTS_AFTER_SECONDS)
        waiting = [
            item.uid
            for item in found.jobs
            if not (item.is_finished or item.is_suspended or item.is_deleting or item.uid in with_pods)
            and (item.created_at or now) <= due
        ]
        return waiting + [pod.uid for pod in found.pods if pod.is_starting() and pod.created_at <= due]

    def reconcile(self, manifest: Manifest, children: Children, now: datetime) -> Plan:
        job = observe.observe_job(manifest)
        return reconcile.plan_job(job, observe.observe_children(job.uid, children), now, self._settings)

    def is_news(self, known: object, body: bytes) -> bool:
        if not isinstance(known, Known):
            return False
        report = reports.parse_report(body, known.layout)
        return report is not None and reports.is_news(known, report)

    def is_finished(self, manifest: Manifest) -> bool:
        return find_final_phase(manifest) is not None

    def is_watched(self, manifest: Manifest) -> bool:
        return _find_phase(manifest) not in FINAL_PHASES

    def is_own_child(self, manifest: Manifest) -> bool:
        metadata = manifest["metadata"]
        labels = metadata.get("labels") or {}
        owner = observe.find_controller(manifest)
        # Deleted with --cascade=orphan, a FineTuneJob leaves its Jobs behind without an owner.
        is_owned = not owner or (owner.get("kind"), owner.get("uid")) == (group.KIND, labels.get(group.LABEL_UID))
        return is_owned and labels.get(job_builder.MANAGER_LABEL) == job_builder.MANAGER and _has_own_name(metadata)

    def build_index_value(self, manifest: Manifest) -> str:
        uri = ((manifest.get("spec") or {}).get("output") or {}).get("uri")
        return str(uri).rstrip("/") if uri else ""

    def record_plan(self, manifest: Manifest, plan: Plan) -> None:
        namespace, before = manifest["metadata"]["namespace"], manifest.get("status") or {}
        self._metrics.record_namespace(namespace)
        if before.get("observedGeneration", -1) < 0:
            self._metrics.jobs_created.labels(namespace, _find_method(manifest)).inc()
        lost = plan.status.get("lostSeconds", 0) - before.get("lostSeconds", 0)
        self._metrics.lost_seconds.labels(namespace).inc(max(0, lost))
        for end in plan.attempt_ends:
            self._metrics.attempt_ends.labels(namespace, end).inc()
        if "completionTime" in plan.status and "completionTime" not in before:
            self._metrics.record_finish(namespace, FineTuneJobStatus.model_validate(plan.status))
        self._metrics.record_job(_build_facts(manifest, plan.status))

    def record_seen(self, manifest: Manifest) -> None:
        metadata = manifest["metadata"]
        phase = find_final_phase(manifest)
        if phase is not None:
            self._metrics.record_finished((metadata["namespace"], metadata["name"]), phase)
            return
        self._metrics.record_job(_build_facts(manifest, manifest.get("status") or {}))

    def record_gone(self, key: Key) -> None:
        self._metrics.forget_job(key)

    def list_recorded(self) -> set[Key]:
        return self._metrics.list_jobs()


def find_final_phase(manifest: Manifest) -> Phase | None:
    """Return the phase of a run that has finished and whose newest generation was seen; None: look closer."""
    phase = _find_phase(manifest)
    observed = (manifest.get("status") or {}).get("observedGeneration")
    is_seen = observed == manifest["metadata"].get("generation")
    return phase if phase in FINAL_PHASES and is_seen else None


def _find_phase(manifest: Manifest) -> Phase | None:
    """Return the phase; None where it is absent or none of ours."""
    phase = (manifest.get("status") or {}).get("phase")
    return next((item for item in Phase if item == phase), None)


def _has_own_name(metadata: Manifest) -> bool:
    """Tell whether a Job's name is the one that its labels give."""
    labels = metadata.get("labels") or {}
    keys = (group.LABEL_JOB, group.LABEL_UID, group.LABEL_STAGE, group.LABEL_ATTEMPT)
    name, uid, stage, attempt = (str(labels.get(key, "")) for key in keys)
    if not (name and uid and stage and attempt.isdecimal()):
        return False
    try:
        return bool(metadata["name"] == names.build_child_name(name, uid, stage, int(attempt)))
    except ValueError:
        return False


def _find_method(manifest: Manifest) -> str:
    return str(((manifest.get("spec") or {}).get("method") or {}).get("kind", ""))


def _build_facts(manifest: Manifest, stored: Manifest) -> JobFacts:
    """Read what the gauges tell; whatever is no text or number of ours counts as absent."""
    metadata, spec = manifest["metadata"], manifest.get("spec") or {}
    since = stored.get("pendingSince")
    percent = (stored.get("progress") or {}).get("percent", 0)
    return JobFacts(
        namespace=metadata["namespace"],
        name=metadata["name"],
        phase=_find_phase({"status": stored}) or Phase.PENDING,
        method=_find_method(manifest),
        queue=str((spec.get("placement") or {}).get("queueName", "")),
        percent=percent if isinstance(percent, int) else 0,
        pending_since=status_fields.parse_time(since) if since else None,
    )

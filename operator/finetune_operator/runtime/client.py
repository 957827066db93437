"""The only module that calls the Kubernetes API: reads what a decision needs, applies a Plan.

Objects are plain dicts. Every read is a live one from the API server; there is no cache here. Reads and writes are
counted and timed. The status is written with the resourceVersion it was computed from, before any action, and only when
it differs: whoever else wrote meanwhile wins, and the next pass decides anew.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import httpx2
import lightkube
from lightkube import operators
from lightkube.config import client_adapter
from lightkube.core.exceptions import ApiError
from lightkube.core.resource import NamespacedResourceG
from lightkube.generic_resource import (
    GenericGlobalResource,
    GenericNamespacedResource,
    create_api_info,
    create_namespaced_resource,
)
from lightkube.types import CascadeType, PatchType

from finetune_api import group
from finetune_api.kinds.finetunejob import status
from finetune_api.kinds.finetunejob.status import FineTuneJobStatus
from finetune_operator.jobs import observe
from finetune_operator.jobs.attempts import clock as attempts
from finetune_operator.jobs.attempts import stages, waiting
from finetune_operator.jobs.observe import FineTuneJob, Observed, Summary
from finetune_operator.runtime import merge_patch as status_patch
from finetune_operator.runtime.metrics import Metrics
from finetune_operator.runtime.plan import Action, CreateJob, DeleteJob, Event, PatchJob, Plan
from finetune_operator.runtime.transport import AiohttpTransport

Manifest = dict[str, Any]

REQUEST_TIMEOUT_SECONDS, CONNECT_TIMEOUT_SECONDS = 30.0, 10.0
PAGE_SIZE = 100
"""Objects per page of a list that is read as dicts. Measured with 3,000 FineTuneJobs of 19 KB each: a page of 500 costs
40 MB of memory."""
SUMMARY_PAGE_SIZE = 500
"""Objects per page of a list that stays bytes: fewer requests for the same memory."""
UNFINISHED_SELECTOR = ",".join(f"status.phase!={phase}" for phase in sorted(observe.FINAL_PHASES))
"""Field selector of the FineTuneJobs that have not finished."""
ALL_NAMESPACES = "*"
_CHILD_LABELS: Mapping[str, None] = {group.LABEL_UID: None, group.LABEL_JOB: None}
COMPONENT = "finetune-operator"


def _define(base: type, api_group: str, version: str, kind: str, plural: str) -> Any:  # noqa: ANN401 - made at run time
    """Make a resource class for plain dicts, outside the library's registry, which other users of it may fill."""
    return type(kind, (base,), {"_api_info": create_api_info(api_group, version, kind, plural)})


_FineTuneJob: Any = create_namespaced_resource(group.GROUP, group.VERSION, group.KIND, group.PLURAL)


class _Summary(NamespacedResourceG, observe.Summary):
    _api_info = _FineTuneJob._api_info


_Job = _define(GenericNamespacedResource, "batch", "v1", "Job", "jobs")
_Pod = _define(GenericNamespacedResource, "", "v1", "Pod", "pods")
_Event = _define(GenericNamespacedResource, "", "v1", "Event", "events")
_AccessReview = _define(
    GenericGlobalResource, "authorization.k8s.io", "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews"
)

RULES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (group.GROUP, group.PLURAL, ("get", "list", "watch")),
    (group.GROUP, f"{group.PLURAL}/status", ("patch",)),
    (group.GROUP, f"{group.PLURAL}/finalizers", ("update",)),
    ("batch", "jobs", ("get", "list", "watch", "create", "patch", "delete")),
    ("", "pods", ("list", "watch")),
    ("", "events", ("create", "list")),
)
"""Group, resource and verbs of everything this operator does; `finalizers` is for blockOwnerDeletion."""

logger = logging.getLogger(__name__)


class ClusterError(Exception):
    """The API server can't be used as it is; the message says what is missing."""


class Conflict(Exception):  # noqa: N818 - it is no error: somebody else was faster
    """What a decision was made on has changed since it was read; decide anew."""


class _Refused(Exception):  # noqa: N818 - carries the error
    """The API server refuses a Job for a reason that only somebody else can change."""

    def __init__(self, error: ApiError) -> None:
        self.error = error


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A FineTuneJob and its children, as read for one pass."""

    job: FineTuneJob
    observed: Observed


class Cluster:
    """A connection to one API server."""

    def __init__(self, client: lightkube.AsyncClient, metrics: Metrics) -> None:
        # Any: the overloads can't be resolved for resource classes that are made at run time.
        self._client: Any = client
        self._metrics = metrics

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()

    async def fetch_snapshot(self, namespace: str, name: str, now: datetime) -> Snapshot | None:
        """Read a FineTuneJob and everything that belongs to it; None if it is gone."""
        manifest = await self._get(_FineTuneJob, namespace, name)
        if manifest is None:
            return None
        job = observe.observe_job(manifest)
        if not job.status.attempts:
            # An attempt stands in the status before its Job is made: without one there is nothing to read.
            return Snapshot(job, Observed())
        selector = {group.LABEL_UID: job.uid}
        jobs, pods = await asyncio.gather(
            self._list(_Job, namespace, labels=selector), self._list(_Pod, namespace, labels=selector)
        )
        attempt = attempts.find_open(job.status)
        if attempt is not None and all(item["metadata"]["name"] != attempt.job for item in jobs):
            # Somebody may have taken the labels off, or the name before us: only a GET by name proves absence.
            found = await self._get(_Job, namespace, attempt.job)
            jobs += [found] if found is not None else []
        events = await self._list_create_errors(namespace, jobs, pods, now)
        return Snapshot(job, observe.observe_children(job.uid, jobs, pods, events))

    async def apply_status(self, job: FineTuneJob, plan: Plan) -> FineTuneJob:
        """Write the status if it differs; return the FineTuneJob as it is stored now.

        Raises:
            Conflict: the FineTuneJob changed since it was read; nothing was done.
        """
        return await self._patch_status(job, plan.status)

    async def apply_actions(self, job: FineTuneJob, plan: Plan, now: datetime) -> None:
        """Act, once the status that says so was written, then tell.

        The Events tell what the status says, whatever becomes of the actions. They come last: a Job must not wait for
        what is only read by people.

        Args:
            job: as stored since.

        Raises:
            ApiError: an action was refused; where it was a create, the status says so.
            Conflict: a Job of that name is there already.
        """
        try:
            try:
                for action in plan.actions:
                    await self._act(job, action)
            finally:
                await self._tell(job, plan.events)
        except _Refused as refused:
            await self._record_refusal(job, refused.error, now)
            raise refused.error from None

    async def _act(self, job: FineTuneJob, action: Action) -> None:
        match action:
            case CreateJob():
                await self._create_job(job, action)
            case DeleteJob():
                await self._delete_job(job.namespace, action.name, action.uid, CascadeType.FOREGROUND)
            case PatchJob():
                await self._patch_job(job.namespace, action)

    async def _tell(self, job: FineTuneJob, events: Sequence[Event]) -> None:
        for event in events:
            await self._create_event(job, event)

    async def iterate_jobs(self, namespace: str) -> AsyncIterator[Summary]:
        """Read all FineTuneJobs of a namespace, or of all, a page at a time."""
        async for item in self._iterate(_Summary, namespace, page_size=SUMMARY_PAGE_SIZE):
            yield item

    async def iterate_children(self, namespace: str) -> AsyncIterator[Manifest]:
        """Read all child Jobs of a namespace, or of all, a page at a time."""
        async for item in self._iterate(_Job, namespace, labels=_CHILD_LABELS, page_size=PAGE_SIZE):
            yield item

    async def iterate_live_pods(self, namespace: str) -> AsyncIterator[Manifest]:
        """Read all pods of child Jobs that have not ended, of a namespace or of all, a page at a time."""
        fields = {"status.phase": operators.not_in(("Succeeded", "Failed"))}
        async for item in self._iterate(_Pod, namespace, labels=_CHILD_LABELS, fields=fields, page_size=PAGE_SIZE):
            yield item

    async def delete_orphan(self, namespace: str, parent: str, parent_uid: str, child: observe.ChildJob) -> bool:
        """Delete a child Job if its FineTuneJob is really gone; tell whether it was."""
        found = await self._get(_FineTuneJob, namespace, parent)
        if found is not None and found["metadata"]["uid"] == parent_uid:
            return False
        await self._delete_job(namespace, child.name, child.uid, CascadeType.BACKGROUND)
        return True

    async def check_access(self, namespaces: Sequence[str]) -> None:
        """Make sure that the kind exists and that every verb is granted where the operator works.

        One namespace that can't be used, a deleted one say, is warned about: the others must not suffer for it.

        Raises:
            ClusterError: the kind is missing, or no namespace can be used; all missing rules are named.
        """
        problems = {}
        for name in namespaces or (ALL_NAMESPACES,):
            problem = await self._find_problem(name)
            if problem:
                problems[name] = problem
        if len(problems) == len(namespaces or (ALL_NAMESPACES,)):
            raise ClusterError("; ".join(problems.values()))
        for name, problem in problems.items():
            logger.warning("watched namespace can't be used: %s", problem, extra={"namespace": name})

    async def can_select_unfinished(self, namespaces: Sequence[str]) -> bool:
        """Tell whether the API server can leave finished FineTuneJobs out of a list; an older CRD lacks the field."""
        for namespace in namespaces or (ALL_NAMESPACES,):
            try:
                await self._probe_list(namespace, {"status.phase": operators.not_in(observe.FINAL_PHASES)})
            except ApiError as error:
                # Any other refusal is no answer to this question, and was told by `check_access`.
                if error.status.code == 400:
                    return False
        return True

    async def _find_problem(self, namespace: str) -> str:
        missing = await self._find_missing_rules("" if namespace == ALL_NAMESPACES else namespace)
        if missing:
            return f"the operator's ServiceAccount must be allowed to {'; '.join(missing)}"
        try:
            await self._probe_list(namespace)
        except ApiError as error:
            if error.status.code == 404:
                raise ClusterError(
                    f"the API server must serve {group.PLURAL}.{group.GROUP}/{group.VERSION}; install the CRD"
                ) from error
            return f"{group.PLURAL} can't be listed: {error}"
        return ""

    async def _find_missing_rules(self, namespace: str) -> list[str]:
        missing = []
        for api_group, resource, verbs in RULES:
            plural, _, subresource = resource.partition("/")
            for verb in verbs:
                attributes = {"group": api_group, "resource": plural, "subresource": subresource, "verb": verb}
                review = _AccessReview(
                    metadata={},
                    spec={"resourceAttributes": attributes | ({"namespace": namespace} if namespace else {})},
                )
                answer = await self._call("create", "selfsubjectaccessreviews", self._client.create(review))
                if not answer["status"]["allowed"]:
                    where = f" in namespace {namespace}" if namespace else " in all namespaces"
                    missing.append(f"{verb} {resource}{'.' + api_group if api_group else ''}{where}")
        return missing

    async def _list_create_errors(
        self, namespace: str, jobs: Sequence[Manifest], pods: Sequence[Manifest], now: datetime
    ) -> list[Manifest]:
        """Read the Events of Jobs that have had no pod for too long: only they say why."""
        with_pods = {observe.find_controller_uid(pod) for pod in pods}
        found: list[Manifest] = []
        for item in observe.observe_children("", jobs, ()).jobs:
            age = now - item.created_at if item.created_at is not None else timedelta()
            is_waiting = not (item.is_finished or item.is_suspended or item.is_deleting or item.uid in with_pods)
            if is_waiting and age >= timedelta(seconds=stages.EVENTS_AFTER_SECONDS):
                found += await self._list(_Event, namespace, fields={"involvedObject.uid": item.uid})
        return found

    async def _patch_status(self, job: FineTuneJob, wanted: FineTuneJobStatus) -> FineTuneJob:
        patch = status_patch.build_patch(job.status, wanted)
        if not patch:
            return job
        body = {"metadata": {"resourceVersion": job.resource_version}, "status": patch}
        call = self._client.patch(
            _FineTuneJob.Status, job.name, body, namespace=job.namespace, patch_type=PatchType.MERGE
        )
        try:
            stored = await self._call("patch", f"{group.PLURAL}/status", call)
        except ApiError as error:
            if error.status.code in (404, 409):
                raise Conflict(str(error)) from error
            raise
        return replace(job, resource_version=stored["metadata"]["resourceVersion"], status=wanted)

    async def _create_job(self, job: FineTuneJob, action: CreateJob) -> None:
        try:
            await self._call("create", "jobs", self._client.create(_Job(action.manifest), namespace=job.namespace))
        except ApiError as error:
            code = error.status.code or 0
            # Ours from an earlier pass, or a stranger's: the next pass reads it and sees which.
            if code == 409:
                raise Conflict(str(error)) from error
            # A quota, a webhook or a validation: only somebody else can change it, and nobody else can tell the user.
            if not waiting.is_passing_refusal(code, str(error.status.message or error)):
                raise _Refused(error) from error
            raise

    async def _record_refusal(self, job: FineTuneJob, error: ApiError, now: datetime) -> None:
        plan = stages.record_refused_create(
            job.status,
            code=error.status.code or 0,
            text=str(error.status.message or error),
            generation=job.generation,
            now=now,
        )
        stored = await self.apply_status(job, plan)
        await self._tell(stored, plan.events)

    async def _delete_job(self, namespace: str, name: str, uid: str, cascade: CascadeType) -> None:
        """Delete a Job unless it is gone or another one has taken its name meanwhile."""
        found = await self._get(_Job, namespace, name)
        if found is None or found["metadata"]["uid"] != uid:
            return
        try:
            await self._call("delete", "jobs", self._client.delete(_Job, name, namespace=namespace, cascade=cascade))
        except ApiError as error:
            if error.status.code != 404:
                raise

    async def _patch_job(self, namespace: str, action: PatchJob) -> None:
        body = {"metadata": {"uid": action.uid}, "spec": dict(action.spec)}
        call = self._client.patch(_Job, action.name, body, namespace=namespace, patch_type=PatchType.MERGE)
        try:
            await self._call("patch", "jobs", call)
        except ApiError as error:
            if error.status.code not in (404, 409):
                raise

    async def _create_event(self, job: FineTuneJob, event: Event) -> None:
        """Tell an Event under a name that a repeated pass gives again; a lost Event is only a line in the log."""
        moment = status.build_time(datetime.now().astimezone())
        text = f"{job.uid}/{job.resource_version}/{event.reason}/{event.message}"
        manifest = _Event(
            metadata={
                "name": f"{job.name}.{hashlib.sha256(text.encode()).hexdigest()[:16]}",
                "namespace": job.namespace,
            },
            involvedObject={
                "apiVersion": group.API_VERSION,
                "kind": group.KIND,
                "namespace": job.namespace,
                "name": job.name,
                "uid": job.uid,
                "resourceVersion": job.resource_version,
            },
            reason=event.reason,
            message=event.message,
            type="Warning" if event.is_warning else "Normal",
            source={"component": COMPONENT},
            reportingComponent=COMPONENT,
            reportingInstance=COMPONENT,
            firstTimestamp=moment,
            lastTimestamp=moment,
            count=1,
        )
        try:
            await self._call("create", "events", self._client.create(manifest, namespace=job.namespace))
        except httpx2.HTTPError as error:
            logger.warning("Event %s was not told: %s", event.reason, error, extra={"namespace": job.namespace})

    async def _get(self, resource: Any, namespace: str, name: str) -> Manifest | None:  # noqa: ANN401 - see above
        call = self._client.get(resource, name, namespace=namespace)
        try:
            return dict(await self._call("get", _plural(resource), call))
        except ApiError as error:
            if error.status.code == 404:
                return None
            raise

    async def _list(
        self,
        resource: Any,  # noqa: ANN401 - see above
        namespace: str,
        *,
        labels: Mapping[str, str | None] | None = None,
        fields: Mapping[str, str] | None = None,
    ) -> list[Manifest]:
        """Read the few objects a selector leaves, whole: with a limit the API server would not use its cache."""
        return [item async for item in self._iterate(resource, namespace, labels=labels, fields=fields)]

    async def _probe_list(self, namespace: str, fields: Mapping[str, Any] | None = None) -> None:
        """Read the first FineTuneJob of a list, to see whether the API server answers."""
        async for _ in self._iterate(_Summary, namespace, fields=fields, page_size=1):
            return

    async def _iterate(
        self,
        resource: Any,  # noqa: ANN401 - see above
        namespace: str,
        *,
        labels: Mapping[str, str | None] | None = None,
        fields: Mapping[str, Any] | None = None,
        page_size: int | None = None,
    ) -> AsyncIterator[Any]:
        pages = self._client.list(
            resource,
            namespace=namespace,
            chunk_size=page_size,
            labels=dict(labels) if labels else None,
            fields=dict(fields) if fields else None,
        )
        items, plural, is_last = aiter(pages), _plural(resource), False
        while not is_last:
            page: list[Any] = []
            async with self._measure("list", plural):
                # The first item of a page waits for the request, the others are there.
                while page_size is None or len(page) < page_size:
                    try:
                        page.append(await anext(items))
                    except StopAsyncIteration:
                        is_last = True
                        break
            for item in page:
                yield item

    async def _call(self, verb: str, resource: str, call: Awaitable[Any]) -> Any:  # noqa: ANN401 - see above
        async with self._measure(verb, resource):
            return await call

    @asynccontextmanager
    async def _measure(self, verb: str, resource: str) -> AsyncIterator[None]:
        begin, code = time.monotonic(), "200"
        try:
            yield
        except ApiError as error:
            code = str(error.status.code)
            raise
        except httpx2.HTTPStatusError as error:
            code = str(error.response.status_code)
            raise
        except httpx2.HTTPError:
            code = "none"
            raise
        finally:
            self._metrics.api_requests.labels(verb, resource, code).inc()
            self._metrics.api_duration.labels(verb, resource).observe(time.monotonic() - begin)


def connect(metrics: Metrics) -> Cluster:
    """Connect with the pod's ServiceAccount or, outside a cluster, the kubeconfig; no request is made yet.

    Raises:
        ClusterError: the kubeconfig is incomplete.
    """
    config = lightkube.KubeConfig.from_env().get()
    if config is None or config.user is None:
        raise ClusterError("the kubeconfig must name a context with a cluster and a user")
    context = client_adapter.verify_cluster(config.cluster, config.user, config.abs_file)
    transport = AiohttpTransport(context, REQUEST_TIMEOUT_SECONDS, CONNECT_TIMEOUT_SECONDS)
    client = lightkube.AsyncClient(config=config, lazy=False, field_manager=COMPONENT, transport=transport)
    return Cluster(client, metrics)


def _plural(resource: Any) -> str:  # noqa: ANN401 - see above
    return str(resource._api_info.plural)

"""What the operator does when the API server refuses: status, Events and counters stay true, other work goes on."""

import asyncio
import contextlib
import copy
from typing import Any

import cluster_objects as objects
import pytest
import scripted_api
from cluster_objects import SETTINGS, Cluster, to_prepare
from manifests import Manifest
from scripted_api import Answer, OperatorParts, ScriptedApi

from finetune_operator.jobs.kind import RESOURCE
from finetune_operator.runtime import access
from finetune_operator.runtime.access import AccessError
from finetune_operator.runtime.api_client import ApiError, ClientError
from finetune_operator.runtime.kind import Refusal
from finetune_operator.runtime.plan_executor import ConflictError

KEY = ("demo", "movies")


def _make_parts(api: ScriptedApi, settings: Any = SETTINGS) -> OperatorParts:
    return OperatorParts(api, settings)


def _serve(job: Manifest, lists: dict[str, list[Manifest]], refusals: dict[tuple[str, str], Answer]) -> Any:
    """Serve one FineTuneJob, which keeps the status it gets, and lists; refuse what is named by method and ending."""

    def answer(method: str, path: str, body: Manifest) -> Answer | None:
        for (verb, ending), refusal in refusals.items():
            if method == verb and path.endswith(ending):
                return refusal
        if path.endswith("/status"):
            assert body["metadata"]["resourceVersion"] == job["metadata"]["resourceVersion"], "written on what was read"
            job["status"] = _merge(job.get("status", {}), body["status"])
            job["metadata"]["resourceVersion"] = str(int(job["metadata"]["resourceVersion"]) + 1)
            return 200, job
        if method == "GET":
            return _read(path.rpartition("/")[2], job, lists)
        return None

    return answer


def _read(name: str, job: Manifest, lists: dict[str, list[Manifest]]) -> Answer:
    if name in ("finetunejobs", "jobs", "pods", "events"):
        return 200, {"items": lists.get(name, []), "metadata": {}}
    found = [item for item in (job, *lists.get("jobs", [])) if item["metadata"]["name"] == name]
    return (200, found[0]) if found else scripted_api.refuse(404, f"{name} not found")


def _merge(old: Manifest, patch: Manifest) -> Manifest:
    merged = {key: value for key, value in old.items() if patch.get(key, value) is not None}
    for key, value in patch.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = _merge(merged[key], value)
        elif value is not None:
            merged[key] = copy.deepcopy(value)
    return merged


def test_a_transition_is_told_and_counted_even_if_an_action_fails_after_it() -> None:
    state = to_prepare()
    state.step(1)
    state.end(64, 20, objects.build_message("prepare", 1, 64, "ConfigError"))
    lists = {"jobs": state.children, "pods": state.pods}
    refusals = {("PATCH", "/" + state.children[0]["metadata"]["name"]): scripted_api.refuse(403, "no")}
    api = ScriptedApi(_serve(state.job, lists, refusals))
    with pytest.raises(ApiError, match="no"):
        asyncio.run(_make_parts(api).controller.reconcile(KEY))
    job_name = state.children[0]["metadata"]["name"]
    assert api.list_writes() == ["PATCH status", f"PATCH {job_name}", "POST events"]
    sample = 'finetune_jobs_finished_total{namespace="demo",reason="ConfigError",result="failed"} 1.0'
    assert sample in api.metrics.build_exposition().decode().splitlines()


REFUSALS = [
    (
        "a quota on Jobs",
        403,
        'jobs.batch "x" is forbidden: exceeded quota: one, used: count/jobs.batch=1',
        "QuotaExceeded",
    ),
    ("a policy for pods", 403, 'violates PodSecurity "restricted:latest"', "PodSecurityViolation"),
    ("a webhook", 403, "admission webhook said no: password=hunter2", "Internal"),
    ("a webhook's own code", 400, "no", "Internal"),
]


@pytest.mark.parametrize(("sentence", "code", "text", "reason"), REFUSALS, ids=[case[0] for case in REFUSALS])
def test_a_job_that_may_not_be_created_stalls_the_run(sentence: str, code: int, text: str, reason: str) -> None:
    state = Cluster()
    refusals = {("POST", "/jobs"): scripted_api.refuse(code, text)}
    api = ScriptedApi(_serve(state.job, {}, refusals))
    parts = _make_parts(api)
    for _ in range(3):
        with pytest.raises(ApiError):
            asyncio.run(parts.controller.reconcile(KEY))
    assert api.list_writes() == [
        "PATCH status",
        "POST jobs",
        "POST events",
        "PATCH status",
        "POST jobs",
        "POST events",
        "POST jobs",
    ], "said once, tried again and again"
    message = f"Job {state.status['attempts'][0]['job']} can't be created: {text.replace('hunter2', '***')}"
    assert state.get_condition("Stalled") == ("True", reason, message)
    assert state.get_condition("Reconciling")[0] == "False"
    assert state.get_condition("Ready")[2] == message
    assert len(state.status["attempts"]) == 1
    assert "hunter2" not in str(api.requests)
    # Once the cause is gone the run goes on, and nothing of it remains.
    refusals.clear()
    asyncio.run(parts.controller.reconcile(KEY))
    state.children = [objects.make_child(api.requests[-1][2])]
    plan = state.step(60)
    assert plan.actions == ()
    assert state.get_condition("Stalled")[0] == "False"


def test_a_job_that_no_server_would_take_ends_the_run_at_once_and_is_no_weather() -> None:
    state = Cluster()
    refusal = scripted_api.refuse(422, 'Job.batch "x" is invalid: spec.template')
    parts = _make_parts(ScriptedApi(_serve(state.job, {}, {("POST", "/jobs"): refusal})))
    with pytest.raises(ApiError):
        asyncio.run(parts.controller.reconcile(KEY))
    asyncio.run(parts.controller.reconcile(KEY))
    failure = state.status["failure"]
    assert (failure["reason"], failure.get("retryable", False)) == ("ConfigError", False)
    assert failure["message"].endswith('is refused as invalid: Job.batch "x" is invalid: spec.template')


def test_a_quota_that_is_not_counted_yet_delays_a_job_and_one_that_is_exceeded_stalls_it() -> None:
    state = Cluster()
    uncounted = 'jobs.batch "x" is forbidden: status unknown for quota: one, resources: count/jobs.batch'
    exceeded = 'jobs.batch "x" is forbidden: exceeded quota: one, used: count/jobs.batch=1'
    refusals = {("POST", "/jobs"): scripted_api.refuse(403, uncounted)}
    api = ScriptedApi(_serve(state.job, {}, refusals))
    parts, seen = _make_parts(api), []
    for text in (uncounted, uncounted, exceeded, exceeded):
        refusals["POST", "/jobs"] = scripted_api.refuse(403, text)
        with pytest.raises(ApiError):
            asyncio.run(parts.controller.reconcile(KEY))
        seen.append((*state.get_condition("Stalled")[:2], state.get_condition("Reconciling")[0]))
    assert "exceeded quota" in state.get_condition("Ready")[2]
    assert seen == [("False", "Pending", "True")] * 3 + [("True", "QuotaExceeded", "False")], "each a pass later"
    told = [body["reason"] for method, path, body in api.requests if method == "POST" and path.endswith("/events")]
    assert told == ["JobCreated", "QuotaExceeded"]
    assert api.list_writes().count("PATCH status") == 3, "the attempt, and each kind of refusal once"


# What a real API server says for some seconds after the CRD was installed: its admission has not seen the kind yet.
_UNKNOWN_KIND = (
    'jobs.batch "x" is forbidden: cannot set blockOwnerDeletion in this case because cannot find RESTMapping for '
    "APIVersion finetune.dev/v1alpha1 Kind FineTuneJob: no matches for kind"
)


@pytest.mark.parametrize(
    ("code", "text", "error"),
    [
        (409, "later", ConflictError),
        (429, "later", ApiError),
        (500, "later", ApiError),
        (503, "later", ApiError),
        (403, _UNKNOWN_KIND, ApiError),
    ],
)
def test_a_create_that_may_work_next_time_says_nothing_of_a_refusal(
    code: int, text: str, error: type[Exception]
) -> None:
    state = Cluster()
    api = ScriptedApi(_serve(state.job, {}, {("POST", "/jobs"): scripted_api.refuse(code, text)}))
    with pytest.raises(error):
        asyncio.run(_make_parts(api).controller.reconcile(KEY))
    assert api.list_writes() == ["PATCH status", "POST jobs", "POST events"]
    assert state.get_condition("Reconciling")[0] == "True"


def test_a_job_that_was_never_created_ends_the_run_with_the_refusal_in_its_message() -> None:
    state = Cluster(spec__runPolicy={"pendingDeadlineSeconds": 60})
    state.step(0, acts=False)
    state.refusals = {state.status["attempts"][0]["job"]: Refusal(403, "exceeded quota: one")}
    state.step(1, acts=False)
    state.step(61)
    assert state.status["failure"]["reason"] == "PendingDeadlineExceeded"
    assert state.status["failure"]["message"].endswith("can't be created: exceeded quota: one")


def test_a_refused_create_is_no_missed_update() -> None:
    state = Cluster()
    refusals = {("POST", "/jobs"): scripted_api.refuse(403, "exceeded quota: one")}
    api = ScriptedApi(_serve(state.job, {"finetunejobs": [state.job]}, refusals))
    parts = _make_parts(api)
    parts.resync.is_first = False

    async def check() -> None:
        await parts.resync.run_once()
        assert parts.controller.records[KEY].is_from_resync
        with pytest.raises(ApiError):
            await parts.controller.reconcile(KEY)

    asyncio.run(check())
    sample = 'finetune_operator_resync_drift_total{kind="missed_update"} 0.0'
    assert sample in api.metrics.build_exposition().decode().splitlines()


# Namespaces.


def _forbid_gone(method: str, path: str, body: Manifest) -> Answer:
    """Namespace `demo` is as it should be, `gone` was deleted with the RoleBinding in it."""
    if "/namespaces/gone/" in path:
        return scripted_api.refuse(403, "forbidden in gone")
    if path.endswith("selfsubjectaccessreviews"):
        where = body["spec"]["resourceAttributes"].get("namespace")
        return 201, {"status": {"allowed": where != "gone"}}
    return 200, {"items": [], "metadata": {}}


@pytest.mark.parametrize(("namespaces", "is_usable"), [(("gone", "demo"), True), (("gone",), False)])
def test_a_watched_namespace_that_was_deleted_stops_nobody_else(
    namespaces: tuple[str, ...], is_usable: bool, caplog: pytest.LogCaptureFixture
) -> None:
    api = ScriptedApi(_forbid_gone)
    parts = _make_parts(api, SETTINGS.model_copy(update={"watched_namespaces": namespaces}))

    async def check() -> None:
        with contextlib.nullcontext() if is_usable else pytest.raises(AccessError, match="in namespace gone"):
            await access.check_access(api.connect(), RESOURCE, namespaces)
        with contextlib.nullcontext() if is_usable else pytest.raises(ClientError, match="no namespace"):
            await parts.resync.run_once()

    asyncio.run(check())
    assert parts.health.is_ready is is_usable
    assert [record.levelname for record in caplog.records] == ["WARNING"] * (2 if is_usable else 1)
    assert 'finetune_operator_reconcile_total{result="error"} 1.0' in api.metrics.build_exposition().decode()


def test_an_orphan_that_may_not_be_deleted_stops_no_resync(caplog: pytest.LogCaptureFixture) -> None:
    state = to_prepare()
    first = state.children[0]
    second = copy.deepcopy(first)
    second["metadata"] |= {"name": first["metadata"]["name"][:-1] + "2", "uid": "job-2"}
    second["metadata"]["labels"]["finetune.dev/attempt"] = "2"
    lists = {"jobs": [first, second]}
    state.job["metadata"]["name"] = "another"
    refusal = scripted_api.refuse(403, "denied by a webhook")
    api = ScriptedApi(_serve(state.job, lists, {("DELETE", "/" + first["metadata"]["name"]): refusal}))
    parts = _make_parts(api)
    asyncio.run(parts.resync.run_once())
    assert parts.health.is_ready
    assert api.list_writes() == [f"DELETE {item['metadata']['name']}" for item in (first, second)]
    assert [record.getMessage() for record in caplog.records] == [
        f"Job {first['metadata']['name']}, whose FineTuneJob is gone, stays: denied by a webhook",
        f"deleted Job {second['metadata']['name']}, whose FineTuneJob is gone",
    ]

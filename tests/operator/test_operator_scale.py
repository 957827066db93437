"""What keeps the operator small and quick: finished runs cost nothing, new ones go first, echoes are not looked at."""

import asyncio
import gzip
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import cluster_objects as objects
import httpx2
import pytest
import scripted_api
from aiohttp import web
from cluster_objects import SETTINGS, Cluster, make_job
from manifests import Manifest
from scripted_api import Answer, ScriptedApi

from finetune_api import crd, group
from finetune_operator import __main__ as program
from finetune_operator.runtime import client as operator_cluster
from finetune_operator.runtime import transport
from finetune_operator.runtime.controller import Worker
from finetune_operator.runtime.health import Health
from finetune_operator.runtime.transport import AiohttpTransport

KEY = ("demo", "movies")


def _make_worker(api: ScriptedApi) -> Worker:
    return Worker(api.connect(), SETTINGS, api.metrics, Health(api.metrics, 30))


def _serve_lists(jobs: list[Manifest]) -> Callable[[str, str, Manifest], Answer | None]:
    def answer(method: str, path: str, body: Manifest) -> Answer | None:
        if path.endswith(group.PLURAL):
            return 200, {"items": jobs, "metadata": {}}
        if method == "GET":
            return 200, {"items": [], "metadata": {}}
        return None

    return answer


def _make_finished(name: str, generation: int = 1, **stored: Any) -> Manifest:
    job = make_job(name, stored_status={"phase": "Succeeded", "observedGeneration": 1, "conditions": []} | stored)
    job["metadata"]["generation"] = generation
    return job


def _count(api: ScriptedApi, sample: str) -> float:
    lines = api.metrics.build_exposition().decode().splitlines()
    return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(sample))


# Finished runs.


def test_a_resync_counts_finished_runs_and_asks_for_none() -> None:
    api = ScriptedApi(_serve_lists([_make_finished("a"), _make_finished("b", phase="Failed")]))
    worker = _make_worker(api)
    asyncio.run(worker._resync())
    assert len(worker._queue) == 0
    assert _count(api, 'finetune_jobs{namespace="demo",phase="Succeeded"}') == 1
    assert _count(api, 'finetune_jobs{namespace="demo",phase="Failed"}') == 1
    assert [method for method, _, _ in api.requests] == ["GET"] * 3, "lists of Jobs, pods and FineTuneJobs"


def test_a_resync_asks_for_no_run_whose_status_says_all() -> None:
    now = (datetime.now(UTC) - objects.NOW).total_seconds()
    state = Cluster()
    state.step(now - 20)
    objects.start_pod(state.add_pod(now - 10), now - 10)
    state.step(now)
    lists = {"finetunejobs": [state.job], "jobs": state.children, "pods": state.pods}

    def answer(method: str, path: str, body: Manifest) -> Answer | None:
        return 200, {"items": lists[path.rpartition("/")[2]], "metadata": {}}

    api = ScriptedApi(answer)
    worker = _make_worker(api)
    asyncio.run(worker._resync())
    assert worker._queue.pop()[0] is None
    lists["pods"] = []
    asyncio.run(worker._resync())
    assert worker._queue.pop()[0] == KEY, "its pod is gone"


def test_a_finished_run_whose_spec_was_changed_is_looked_at_and_no_drift() -> None:
    finished = {"type": "Finished", "status": "True", "reason": "Succeeded", "lastTransitionTime": objects.time_text(0)}
    api = ScriptedApi(_serve_lists([_make_finished("movies", generation=2, conditions=[finished])]))
    worker = _make_worker(api)
    worker._health.is_ready = True
    asyncio.run(worker._resync())
    assert worker._queue.pop()[0] == KEY
    assert worker._resynced == set(), "the watch leaves finished runs out: nothing was missed"


def test_a_status_that_is_none_of_ours_costs_only_its_own_run() -> None:
    broken = make_job("movies", stored_status={"phase": ["?"], "observedGeneration": "?"})
    api = ScriptedApi(_serve_lists([broken, _make_finished("fine")]))
    worker = _make_worker(api)
    asyncio.run(worker._resync())
    assert worker._queue.pop()[0] == KEY
    assert _count(api, 'finetune_jobs{namespace="demo",phase="Succeeded"}') == 1


def test_a_run_that_left_the_watch_is_looked_at_once_more() -> None:
    job = _make_finished("movies")
    worker = _make_worker(ScriptedApi(lambda *_: None))
    worker.enqueue(group.PLURAL, "DELETED", job)
    assert worker._queue.pop()[0] == KEY, "whether it finished or was deleted only a read can tell"


@pytest.mark.parametrize(("code", "want"), [(200, True), (400, False), (429, True), (403, True)])
def test_finished_runs_are_left_out_of_the_watch_if_the_crd_can(code: int, want: bool) -> None:
    api = ScriptedApi(
        lambda *_: (200, {"items": [], "metadata": {}}) if code == 200 else scripted_api.refuse(code, "field label")
    )
    assert asyncio.run(api.connect().can_select_unfinished(())) is want


def test_the_crd_lets_the_phase_be_selected() -> None:
    [version] = crd.build_crd()["spec"]["versions"]
    assert {"jsonPath": ".status.phase"} in version["selectableFields"]
    assert operator_cluster.UNFINISHED_SELECTOR == "status.phase!=Failed,status.phase!=Succeeded"


def test_each_page_of_a_list_is_counted_as_a_request() -> None:
    api = ScriptedApi(_serve_lists([_make_finished(f"run-{number}") for number in range(3)]))

    async def read() -> list[str]:
        return [item.metadata.name async for item in api.connect().iterate_jobs("demo")]

    assert asyncio.run(read()) == ["run-0", "run-1", "run-2"]
    assert _count(api, 'finetune_operator_api_requests_total{code="200",resource="finetunejobs",verb="list"}') == 1


# New runs and echoes.


def test_a_new_run_goes_before_those_that_wait() -> None:
    worker = _make_worker(ScriptedApi(lambda *_: None))
    for name in ("a", "b"):
        worker.enqueue("finetunejobs", "MODIFIED", make_job(name))
    worker.enqueue("finetunejobs", "ADDED", make_job("new"))
    assert [worker._queue.pop()[0] for _ in range(3)] == [("demo", name) for name in ("new", "a", "b")]


def test_a_new_run_is_decided_on_what_its_event_says() -> None:
    state = Cluster()

    def answer(method: str, path: str, body: Manifest) -> Answer | None:
        return (200, state.job) if path.endswith("/status") else None

    api = ScriptedApi(answer)
    worker = _make_worker(api)
    worker.enqueue(group.PLURAL, "ADDED", state.job)
    asyncio.run(worker._reconcile(KEY))
    assert [(method, path.rpartition("/")[2]) for method, path, _ in api.requests] == [
        ("PATCH", "status"),
        ("POST", "jobs"),
        ("POST", "events"),
    ]
    assert api.requests[0][2]["metadata"] == {"resourceVersion": state.job["metadata"]["resourceVersion"]}


def test_a_new_run_that_was_changed_meanwhile_is_read() -> None:
    state = Cluster()
    api = ScriptedApi(lambda method, *_: (200, state.job) if method == "GET" else None)
    worker = _make_worker(api)
    worker.enqueue(group.PLURAL, "ADDED", state.job)
    worker.enqueue(group.PLURAL, "MODIFIED", state.job)
    asyncio.run(worker._reconcile(KEY))
    assert api.requests[0][0] == "GET"


def test_an_event_that_is_old_news_makes_nothing_and_the_next_look_is_a_read() -> None:
    state = Cluster()
    api = ScriptedApi(lambda method, *_: (200, state.job) if method == "GET" else scripted_api.refuse(409, "changed"))
    worker = _make_worker(api)
    worker.enqueue(group.PLURAL, "ADDED", state.job)
    for _ in range(2):
        with pytest.raises(operator_cluster.Conflict):
            asyncio.run(worker._reconcile(KEY))
    assert [(method, path.rpartition("/")[2]) for method, path, _ in api.requests] == [
        ("PATCH", "status"),
        ("GET", KEY[1]),
        ("PATCH", "status"),
    ]


def test_the_echo_of_an_own_write_is_not_looked_at_and_anybody_else_s_change_is() -> None:
    state = Cluster()

    def answer(method: str, path: str, body: Manifest) -> Answer | None:
        if path.endswith("/status"):
            state.job["metadata"]["resourceVersion"] = "101"
            return 200, state.job
        return (200, state.job) if method == "GET" else None

    worker = _make_worker(ScriptedApi(answer))
    asyncio.run(worker._reconcile(KEY))
    worker.enqueue(group.PLURAL, "MODIFIED", state.job)
    assert worker._queue.pop()[0] is None
    state.job["metadata"]["resourceVersion"] = "102"
    worker.enqueue(group.PLURAL, "MODIFIED", state.job)
    assert worker._queue.pop()[0] == KEY


def test_kopf_keeps_and_compares_nothing_of_an_object() -> None:
    storage = program.build_kopf_settings().persistence.diffbase_storage
    assert storage.build(body={"spec": {"x": 1}}) == {}  # type: ignore[arg-type]  # a body is a mapping
    assert storage.fetch(body={}) is None  # type: ignore[arg-type]


# The transport, against a real server.


async def _exchange(handler: Any, timeout_seconds: float = 10.0, **request: Any) -> httpx2.Response:
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    carrier = AiohttpTransport(transport.ssl.create_default_context(), timeout_seconds, 1.0)
    try:
        async with httpx2.AsyncClient(transport=carrier, base_url=f"http://127.0.0.1:{port}") as client:
            return await client.request(**{"method": "GET", "url": "/", **request})
    finally:
        await runner.cleanup()


def test_requests_arrive_whole_and_answers_too() -> None:
    async def echo(request: web.Request) -> web.Response:
        told = {"method": request.method, "path": request.raw_path, "body": (await request.read()).decode()}
        body = gzip.compress(json.dumps(told | {"type": request.headers["Content-Type"]}).encode())
        return web.Response(status=409, body=body, headers={"Content-Encoding": "gzip", "X-Mark": "yes"})

    headers = {"Content-Type": "application/merge-patch+json"}
    url = "/x?labelSelector=a%3Db%2Cc"
    answer = asyncio.run(_exchange(echo, method="PATCH", url=url, content=b'{"a": "\xc3\xa4"}', headers=headers))
    assert (answer.status_code, answer.headers["X-Mark"]) == (409, "yes")
    assert answer.json() == {
        "method": "PATCH",
        "path": url,
        "body": '{"a": "ä"}',
        "type": "application/merge-patch+json",
    }


async def _hang(request: web.Request) -> web.Response:
    await asyncio.Event().wait()
    return web.Response()


async def _break_off(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


@pytest.mark.parametrize(
    ("handler", "timeout_seconds", "error"),
    [(_hang, 0.2, httpx2.ReadTimeout), (_break_off, 60.0, httpx2.ReadError)],
    ids=["no answer", "cut off"],
)
def test_failures_are_those_of_the_client_library(handler: Any, timeout_seconds: float, error: type[Exception]) -> None:
    with pytest.raises(error):
        asyncio.run(_exchange(handler, timeout_seconds=timeout_seconds))


def test_a_server_that_is_not_there_is_a_connect_error() -> None:
    async def connect() -> None:
        carrier = AiohttpTransport(transport.ssl.create_default_context(), 5.0, 1.0)
        async with httpx2.AsyncClient(transport=carrier) as client:
            await client.get("http://127.0.0.1:1/")

    with pytest.raises(httpx2.ConnectError):
        asyncio.run(connect())

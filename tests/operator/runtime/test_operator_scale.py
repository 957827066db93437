"""What keeps the operator small and quick: finished runs cost nothing, new ones go first, echoes are not looked at."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import cluster_objects as objects
import pytest
import scripted_api
from cluster_objects import SETTINGS, Cluster, make_job
from manifests import Manifest
from scripted_api import Answer, OperatorParts, ScriptedApi

from finetune_api import crd, group
from finetune_operator.jobs.kind import RESOURCE, FineTuneJobs
from finetune_operator.runtime import access, kopf_runner
from finetune_operator.runtime.kind import Key
from finetune_operator.runtime.plan_executor import ConflictError

KEY = ("demo", "movies")


def _make_parts(api: ScriptedApi) -> OperatorParts:
    return OperatorParts(api, SETTINGS)


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
    parts = _make_parts(api)
    asyncio.run(parts.resync.run_once())
    assert len(parts.controller.queue) == 0
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
        name = path.rpartition("/")[2]
        return (200, {"items": lists[name], "metadata": {}}) if name in lists else (200, state.job)

    api = ScriptedApi(answer)
    parts = _make_parts(api)
    asyncio.run(parts.controller.reconcile(KEY))
    asyncio.run(parts.resync.run_once())
    assert parts.controller.queue.pop()[0] is None
    lists["pods"] = []
    asyncio.run(parts.resync.run_once())
    assert parts.controller.queue.pop()[0] == KEY, "its pod is gone"


def test_a_finished_run_whose_spec_was_changed_is_looked_at_and_no_drift() -> None:
    finished = {"type": "Finished", "status": "True", "reason": "Succeeded", "lastTransitionTime": objects.time_text(0)}
    api = ScriptedApi(_serve_lists([_make_finished("movies", generation=2, conditions=[finished])]))
    parts = _make_parts(api)
    parts.resync.is_first = False
    asyncio.run(parts.resync.run_once())
    assert parts.controller.queue.pop()[0] == KEY
    assert not parts.controller.records[KEY].is_from_resync, "the watch leaves finished runs out: nothing was missed"


def test_a_status_that_is_none_of_ours_costs_only_its_own_run() -> None:
    broken = make_job("movies", stored_status={"phase": ["?"], "observedGeneration": "?"})
    api = ScriptedApi(_serve_lists([broken, _make_finished("fine")]))
    parts = _make_parts(api)
    asyncio.run(parts.resync.run_once())
    assert parts.controller.queue.pop()[0] == KEY
    assert _count(api, 'finetune_jobs{namespace="demo",phase="Succeeded"}') == 1


def test_a_run_that_left_the_watch_is_looked_at_once_more() -> None:
    job = _make_finished("movies")
    parts = _make_parts(ScriptedApi(lambda *_: None))
    parts.controller.enqueue(group.PLURAL, "DELETED", job)
    assert parts.controller.queue.pop()[0] == KEY, "whether it finished or was deleted only a read can tell"


@pytest.mark.parametrize(("code", "want"), [(200, True), (400, False), (429, True), (403, True)])
def test_finished_runs_are_left_out_of_the_watch_if_the_crd_can(code: int, want: bool) -> None:
    api = ScriptedApi(
        lambda *_: (200, {"items": [], "metadata": {}}) if code == 200 else scripted_api.refuse(code, "field label")
    )
    assert asyncio.run(access.can_select(api.connect(), RESOURCE, (), FineTuneJobs.unfinished_selector)) is want


def test_the_crd_lets_the_phase_be_selected() -> None:
    [version] = crd.build_crd()["spec"]["versions"]
    assert {"jsonPath": ".status.phase"} in version["selectableFields"]
    assert FineTuneJobs.unfinished_selector == "status.phase!=Failed,status.phase!=Succeeded"


def test_each_page_of_a_list_is_counted_as_a_request() -> None:
    api = ScriptedApi(_serve_lists([_make_finished(f"run-{number}") for number in range(3)]))

    async def read() -> list[str]:
        pages = api.connect().list_pages(RESOURCE, "demo", 100)
        return [item["metadata"]["name"] async for page in pages for item in page]

    assert asyncio.run(read()) == ["run-0", "run-1", "run-2"]
    assert _count(api, 'finetune_operator_api_requests_total{code="200",resource="finetunejobs",verb="list"}') == 1


# New runs and echoes.


def test_a_new_run_goes_before_those_that_wait() -> None:
    parts = _make_parts(ScriptedApi(lambda *_: None))
    for name in ("a", "b"):
        parts.controller.enqueue("finetunejobs", "MODIFIED", make_job(name))
    parts.controller.enqueue("finetunejobs", "ADDED", make_job("new"))
    assert [parts.controller.queue.pop()[0] for _ in range(3)] == [("demo", name) for name in ("new", "a", "b")]


def test_workers_are_kept_for_new_runs_while_others_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    parts, begun, has_new = _make_parts(ScriptedApi(lambda *_: None)), [], asyncio.Event()

    async def hang(key: Key) -> None:
        begun.append(key[1])
        if key[1] == "new":
            has_new.set()
        await asyncio.Event().wait()

    async def work() -> None:
        for name in ("a", "b", "c"):
            parts.controller.enqueue(group.PLURAL, "MODIFIED", make_job(name))
        loops = [asyncio.create_task(loop) for loop in parts.controller.build_loops(4)]
        await asyncio.sleep(0)
        parts.controller.enqueue(group.PLURAL, "ADDED", make_job("new"))
        await has_new.wait()
        for loop in loops:
            loop.cancel()

    monkeypatch.setattr(parts.controller, "reconcile", hang)
    asyncio.run(work())
    assert begun == ["a", "new"], "one in four looks at what is not new"


def test_a_new_run_is_decided_on_what_its_event_says() -> None:
    state = Cluster()

    def answer(method: str, path: str, body: Manifest) -> Answer | None:
        return (200, state.job) if path.endswith("/status") else None

    api = ScriptedApi(answer)
    parts = _make_parts(api)
    parts.controller.enqueue(group.PLURAL, "ADDED", state.job)
    asyncio.run(parts.controller.reconcile(KEY))
    assert [(method, path.rpartition("/")[2]) for method, path, _ in api.requests] == [
        ("PATCH", "status"),
        ("POST", "jobs"),
        ("POST", "events"),
    ]
    assert api.requests[0][2]["metadata"] == {"resourceVersion": state.job["metadata"]["resourceVersion"]}


def test_a_new_run_that_was_changed_meanwhile_is_read() -> None:
    state = Cluster()
    api = ScriptedApi(lambda method, *_: (200, state.job) if method != "POST" else None)
    parts = _make_parts(api)
    parts.controller.enqueue(group.PLURAL, "ADDED", state.job)
    parts.controller.enqueue(group.PLURAL, "MODIFIED", state.job)
    asyncio.run(parts.controller.reconcile(KEY))
    assert api.requests[0][0] == "GET"


def test_an_event_that_is_old_news_makes_nothing_and_the_next_look_is_a_read() -> None:
    state = Cluster()
    api = ScriptedApi(lambda method, *_: (200, state.job) if method == "GET" else scripted_api.refuse(409, "changed"))
    parts = _make_parts(api)
    parts.controller.enqueue(group.PLURAL, "ADDED", state.job)
    for _ in range(2):
        with pytest.raises(ConflictError):
            asyncio.run(parts.controller.reconcile(KEY))
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

    parts = _make_parts(ScriptedApi(answer))
    asyncio.run(parts.controller.reconcile(KEY))
    parts.controller.enqueue(group.PLURAL, "MODIFIED", state.job)
    assert parts.controller.queue.pop()[0] is None
    state.job["metadata"]["resourceVersion"] = "102"
    parts.controller.enqueue(group.PLURAL, "MODIFIED", state.job)
    assert parts.controller.queue.pop()[0] == KEY


@pytest.mark.parametrize(("heard", "want"), [(["101"], 0), (["101", "102"], 1)])
def test_the_echo_may_come_before_the_answer(heard: list[str], want: int) -> None:
    state, done = Cluster(), asyncio.Event()

    def answer(method: str, path: str, body: Manifest) -> Answer | None:
        if path.endswith("/status"):
            for version in heard:
                state.job["metadata"]["resourceVersion"] = version
                parts.controller.enqueue(group.PLURAL, "MODIFIED", state.job)
            return 200, {"metadata": state.job["metadata"] | {"resourceVersion": "101"}}
        if path.endswith("/events"):
            done.set()
        return (200, state.job) if method == "GET" else None

    async def work() -> None:
        working = asyncio.create_task(parts.controller.work())
        await done.wait()
        working.cancel()

    parts = _make_parts(ScriptedApi(answer))
    parts.controller.queue.add(KEY)
    asyncio.run(work())
    assert len(parts.controller.queue) == want, "only somebody else's change is looked at"


def test_kopf_keeps_and_compares_nothing_of_an_object() -> None:
    storage = kopf_runner.build_kopf_settings("x", "y").persistence.diffbase_storage
    assert storage.build(body={"spec": {"x": 1}}) == {}  # type: ignore[arg-type]  # a body is a mapping
    assert storage.fetch(body={}) is None  # type: ignore[arg-type]

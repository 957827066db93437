"""Running pods are asked seldom, few at a time and for no longer than they deserve; nothing they do harms anybody."""

import asyncio
import gzip
import itertools
import json
import threading
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from typing import Any

import cluster_objects as objects
import pod_stand_in
import pytest
from cluster_objects import SETTINGS, to_train
from pod_stand_in import PodStandIn, reply

from finetune_api import live
from finetune_operator.jobs.kind import FineTuneJobs
from finetune_operator.runtime import pod_poller
from finetune_operator.runtime.kind import Key
from finetune_operator.runtime.metrics import Metrics
from finetune_operator.runtime.plan import Endpoint
from finetune_operator.runtime.pod_poller import PodPoller

KEY = ("demo", "movies")
REPORT = {"stage": "train", "phase": "train", "step": 120, "totalSteps": 250, "percent": 48}


class Clock:
    """A clock that goes where the test sets it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def pod() -> Iterator[PodStandIn]:
    """A pod that answers."""
    with pod_stand_in.serving() as serving:
        serving.report = dict(REPORT)
        yield serving


def _build_endpoint(pod: PodStandIn, **changes: Any) -> Endpoint:
    """Return what a pass over a run with a running pod names, at the stand-in's address."""
    cluster = to_train()
    objects.start_pod(cluster.add_pod(25), 25)
    found = cluster.step(30).endpoint
    assert found is not None
    at_pod = {"url": f"{pod.url}/progress", "wish_url": f"{pod.url}/checkpoint"}
    return replace(found, **(at_pod | changes))


class Polling:
    """A poller at work."""

    def __init__(self, seconds: float = 15.0) -> None:
        self.clock, self.metrics = Clock(), Metrics()
        self.poller = PodPoller(FineTuneJobs(SETTINGS, self.metrics), self.metrics, seconds=seconds, clock=self.clock)
        self.news: asyncio.Queue[Key] = asyncio.Queue()

    def count(self, result: str) -> float:
        sample = self.metrics.registry.get_sample_value("finetune_operator_pod_requests_total", {"result": result})
        return sample or 0.0

    async def wait_for_news(self) -> Key:
        """Let time go on until somebody is told of news."""
        await self.wait_for(lambda: not self.news.empty())
        return self.news.get_nowait()

    async def wait_for(self, condition: Callable[[], bool]) -> None:
        """Let time go on, a second of the poller's at a time, until something is true."""
        async with asyncio.timeout(20):
            while not condition():
                self.clock.now += 1
                # Whoever waits for its time looks at the clock when something changes.
                self.poller._queue._changed.set()
                await asyncio.sleep(0.01)


def _run(test: Callable[[Polling], Coroutine[Any, Any, None]], seconds: float = 15.0) -> Polling:
    polling = Polling(seconds)

    async def run() -> None:
        tasks = [asyncio.create_task(polling.poller.work(polling.news.put_nowait)) for _ in range(pod_poller.PARALLEL)]
        try:
            await test(polling)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await polling.poller.close()

    asyncio.run(run())
    return polling


def test_an_answer_that_is_news_asks_for_a_pass_which_finds_it(pod: PodStandIn) -> None:
    endpoint = _build_endpoint(pod)

    async def test(polling: Polling) -> None:
        polling.poller.follow(KEY, endpoint)
        assert await polling.wait_for_news() == KEY
        answer = polling.poller.get_answer(KEY)
        assert answer is not None
        assert (answer.pod_uid, json.loads(answer.body)) == (endpoint.pod_uid, REPORT)

    assert _run(test).count("success") >= 1
    assert set(pod.requests) == {("GET", "/progress", endpoint.pod_uid)}


def test_an_answer_that_says_nothing_new_asks_for_none(pod: PodStandIn) -> None:
    cluster = to_train()
    objects.start_pod(cluster.add_pod(25), 25)
    cluster.step(30)
    known = cluster.tell(cluster.pods[-1], 40, **REPORT).endpoint
    assert known is not None
    endpoint = _build_endpoint(pod, known=known.known)

    async def test(polling: Polling) -> None:
        polling.poller.follow(KEY, endpoint)
        await polling.wait_for(lambda: len(pod.requests) >= 2)
        assert polling.news.empty()
        pod.report["percent"] = 80
        await polling.wait_for(lambda: not polling.news.empty())

    _run(test)


def test_a_pod_is_asked_once_in_an_interval_whatever_passes_say(pod: PodStandIn) -> None:
    endpoint = _build_endpoint(pod)
    moments: list[float] = []

    async def test(polling: Polling) -> None:
        def answer(handler: BaseHTTPRequestHandler) -> None:
            moments.append(polling.poller._asked[KEY])
            reply(handler, 200, json.dumps(REPORT).encode())

        def ask_again() -> bool:
            polling.poller.follow(KEY, None)
            polling.poller.follow(KEY, endpoint)
            return len(moments) >= 4

        pod.answer = answer
        polling.poller.follow(KEY, endpoint)
        await polling.wait_for(ask_again)

    _run(test)
    assert min(later - earlier for earlier, later in itertools.pairwise(moments)) >= 15


def test_a_run_without_a_pod_is_not_asked_and_its_answer_forgotten(pod: PodStandIn) -> None:
    async def test(polling: Polling) -> None:
        polling.poller.follow(KEY, _build_endpoint(pod))
        polling.poller.follow(("demo", "other"), _build_endpoint(pod, url=f"{pod.url}/other"))
        await polling.wait_for(lambda: polling.poller.get_answer(KEY) is not None)
        polling.poller.follow(KEY, None)
        assert polling.poller.get_answer(KEY) is None
        await polling.wait_for(lambda: len(polling.poller._queue) == 1)
        before = [path for _, path, _ in pod.requests].count("/progress")
        await polling.wait_for(lambda: [path for _, path, _ in pod.requests].count("/other") > 5)
        assert [path for _, path, _ in pod.requests].count("/progress") == before

    _run(test)


def test_what_the_pod_before_said_is_not_taken_for_the_new_one(pod: PodStandIn) -> None:
    async def test(polling: Polling) -> None:
        polling.poller.follow(KEY, _build_endpoint(pod))
        await polling.wait_for_news()
        polling.poller.follow(KEY, _build_endpoint(pod, pod_uid="another"))
        assert polling.poller.get_answer(KEY) is None

    _run(test)


def test_a_wish_is_told_once_and_again_until_it_is_taken(pod: PodStandIn) -> None:
    pod.wish_status = 503
    endpoint = _build_endpoint(pod, wish="now")

    async def test(polling: Polling) -> None:
        polling.poller.follow(KEY, endpoint)
        await polling.wait_for(lambda: pod.count("POST") == 2)
        assert polling.news.empty()
        pod.wish_status = 202
        await polling.wait_for(lambda: not polling.news.empty())
        assert polling.news.get_nowait() == KEY
        answer = polling.poller.get_answer(KEY)
        assert answer is not None
        assert answer.wish == "now"
        await polling.wait_for(lambda: pod.count("GET") == 1)

    _run(test)
    assert pod.count("POST") == 3
    assert set(pod.requests) == {("POST", "/checkpoint", endpoint.pod_uid), ("GET", "/progress", endpoint.pod_uid)}


def _redirect(handler: BaseHTTPRequestHandler) -> None:
    reply(handler, 302, b"", Location="http://169.254.169.254/latest/meta-data/")


def _hang(handler: BaseHTTPRequestHandler) -> None:
    threading.Event().wait(30)
    handler.close_connection = True


def _trickle(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    pause = threading.Event()
    for _ in range(100):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        pause.wait(0.1)


def _break_off(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b"{")


def test_the_longest_report_of_the_contract_is_read() -> None:
    assert pod_poller.MAX_ANSWER_BYTES == live.MAX_PROGRESS_BYTES


BAD_ANSWERS: dict[str, Callable[[BaseHTTPRequestHandler], None]] = {
    "another pod's": lambda handler: reply(handler, 421, b"{}"),
    "an error": lambda handler: reply(handler, 500, b"no"),
    "a redirect": _redirect,
    "too long": lambda handler: reply(handler, 200, b" " * (pod_poller.MAX_ANSWER_BYTES + 1)),
    "a longer one than it says": lambda handler: reply(handler, 200, b" " * 10**6, Content_Length=str(10**9)),
    "no HTTP": lambda handler: handler.wfile.write(b"SSH-2.0-OpenSSH\r\n") and None,
    "broken off": _break_off,
    "one byte after the other": _trickle,
    "none": _hang,
}


@pytest.mark.parametrize("name", BAD_ANSWERS)
def test_an_answer_that_is_none_is_nothing(pod: PodStandIn, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pod_poller, "TIMEOUT_SECONDS", 0.3)
    pod.answer = BAD_ANSWERS[name]

    async def test(polling: Polling) -> None:
        polling.poller.follow(KEY, _build_endpoint(pod))
        await polling.wait_for(lambda: polling.count("error") == 1)
        assert (polling.news.empty(), polling.poller.get_answer(KEY)) == (True, None)

    _run(test)


def test_an_answer_that_would_unpack_to_much_is_not_unpacked(pod: PodStandIn) -> None:
    bomb = gzip.compress(b" " * 10**7)
    assert len(bomb) < pod_poller.MAX_ANSWER_BYTES
    pod.answer = lambda handler: reply(handler, 200, bomb, Content_Encoding="gzip")

    async def test(polling: Polling) -> None:
        polling.poller.follow(KEY, _build_endpoint(pod))
        await polling.wait_for(lambda: polling.count("success") == 1)
        answer = polling.poller.get_answer(KEY)
        assert answer is not None
        assert answer.body == bomb
        assert polling.news.empty()

    _run(test)


def test_a_pod_that_is_not_there_is_nothing() -> None:
    with pod_stand_in.serving() as gone:
        endpoint = _build_endpoint(gone)

    async def test(polling: Polling) -> None:
        polling.poller.follow(KEY, endpoint)
        await polling.wait_for(lambda: polling.count("error") == 2)

    _run(test)


def test_pods_that_hang_leave_room_for_others_in_the_end(pod: PodStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pod_poller, "TIMEOUT_SECONDS", 0.2)
    with pod_stand_in.serving() as hanging:
        hanging.answer = _hang

        async def test(polling: Polling) -> None:
            for number in range(3 * pod_poller.PARALLEL):
                polling.poller.follow(("demo", f"hangs-{number}"), _build_endpoint(hanging))
            polling.poller.follow(KEY, _build_endpoint(pod))
            assert await polling.wait_for_news() == KEY

        _run(test)

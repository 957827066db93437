"""The connection to the API server, against a real HTTP server: requests, refusals, failures and logins."""

import asyncio
import contextlib
import gzip
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from finetune_operator.runtime import api_client as api
from finetune_operator.runtime.api_client import ApiError, Client, UnreachableError
from finetune_operator.runtime.metrics import Metrics
from finetune_operator.runtime.resources import JOBS

Handler = Callable[[web.Request], Awaitable[web.Response]]


def _write_kubeconfig(path: Path, port: int, token: str) -> None:
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "x",
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
        "clusters": [{"name": "x", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "x", "user": {"token": token}}],
    }
    path.write_text(json.dumps(document))


@contextlib.asynccontextmanager
async def _serving(handler: Handler, kubeconfig: Path) -> AsyncIterator[tuple[Client, int]]:
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    _write_kubeconfig(kubeconfig, port, "first")
    client = Client(Metrics(), kubeconfig)
    try:
        yield client, port
    finally:
        await client.close()
        await runner.cleanup()


def _run(handler: Handler, folder: Path, work: Callable[[Client], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        async with _serving(handler, folder / "kubeconfig") as (client, _):
            return await work(client)

    return asyncio.run(run())


def test_requests_arrive_whole_and_answers_too(tmp_path: Path) -> None:
    async def echo(request: web.Request) -> web.Response:
        told = {
            "method": request.method,
            "path": request.path_qs,
            "type": request.headers["Content-Type"],
            "token": request.headers["Authorization"],
            "body": await request.json(),
        }
        body = gzip.compress(json.dumps(told).encode())
        return web.Response(body=body, headers={"Content-Encoding": "gzip"})

    answer = _run(echo, tmp_path, lambda client: client.patch(JOBS, "demo", "a", {"spec": {"ä": [1]}}, "status"))
    assert answer == {
        "method": "PATCH",
        "path": "/apis/batch/v1/namespaces/demo/jobs/a/status?fieldManager=finetune-operator",
        "type": "application/merge-patch+json",
        "token": "Bearer first",
        "body": {"spec": {"ä": [1]}},
    }


def test_a_delete_names_the_uid_it_is_meant_for(tmp_path: Path) -> None:
    bodies: list[Any] = []

    async def keep(request: web.Request) -> web.Response:
        bodies.append(await request.json())
        return web.json_response({})

    assert _run(keep, tmp_path, lambda client: client.delete(JOBS, "demo", "a", "uid-1", "Foreground"))
    assert bodies == [{"preconditions": {"uid": "uid-1"}, "propagationPolicy": "Foreground"}]


@pytest.mark.parametrize("code", [404, 409])
def test_an_object_that_is_gone_or_another_one_is_not_deleted(code: int, tmp_path: Path) -> None:
    async def refuse(request: web.Request) -> web.Response:
        return web.json_response({"message": "no"}, status=code)

    assert not _run(refuse, tmp_path, lambda client: client.delete(JOBS, "demo", "a", "uid-1", "Background"))


def test_a_long_list_is_read_by_pages_of_metadata_alone(tmp_path: Path) -> None:
    seen: list[tuple[str, str]] = []

    async def page(request: web.Request) -> web.Response:
        seen.append((request.query.get("continue", ""), request.headers["Accept"]))
        number = len(seen)
        metadata = {"continue": f"page-{number}"} if number < 3 else {}
        return web.json_response({"metadata": metadata, "items": [{"metadata": {"name": str(number)}}]})

    async def read(client: Client) -> list[str]:
        pages = client.list_pages(JOBS, "", 1, labels="a", is_metadata_only=True)
        return [item["metadata"]["name"] async for items in pages for item in items]

    assert _run(page, tmp_path, read) == ["1", "2", "3"]
    assert [position for position, _ in seen] == ["", "page-1", "page-2"]
    assert all(accept.startswith("application/json;as=PartialObjectMetadataList;") for _, accept in seen)


@pytest.mark.parametrize(
    ("body", "want"),
    [
        (b'{"kind": "Status", "message": "quota is spent"}', "quota is spent"),
        (b"upstream connect error", "upstream connect error"),
        (b"[]", "HTTP 503"),
        (b"", "HTTP 503"),
    ],
)
def test_a_refusal_says_what_the_server_said(body: bytes, want: str, tmp_path: Path) -> None:
    async def refuse(request: web.Request) -> web.Response:
        return web.Response(status=503, body=body)

    with pytest.raises(ApiError) as caught:
        _run(refuse, tmp_path, lambda client: client.get(JOBS, "demo", "a"))
    assert (caught.value.code, str(caught.value)) == (503, want)


async def _hang(request: web.Request) -> web.Response:
    await asyncio.Event().wait()
    return web.Response()


async def _break_off(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


@pytest.mark.parametrize("handler", [_hang, _break_off], ids=["no answer", "cut off"])
def test_an_answer_that_does_not_come_is_a_failure_of_its_own(
    handler: Handler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "REQUEST_TIMEOUT_SECONDS", 0.3)
    with pytest.raises(UnreachableError):
        _run(handler, tmp_path, lambda client: client.get(JOBS, "demo", "a"))


def test_a_server_that_is_not_there_is_unreachable(tmp_path: Path) -> None:
    async def ask() -> None:
        _write_kubeconfig(tmp_path / "kubeconfig", 9, "first")
        client = Client(Metrics(), tmp_path / "kubeconfig")
        try:
            await client.get(JOBS, "demo", "a")
        finally:
            await client.close()

    with pytest.raises(UnreachableError, match=r"127\.0\.0\.1"):
        asyncio.run(ask())


def test_without_a_usable_kubeconfig_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(UnreachableError, match="must be a ServiceAccount or a kubeconfig"):
        asyncio.run(Client(Metrics(), tmp_path / "absent").get(JOBS, "demo", "a"))


def test_a_token_that_is_no_longer_accepted_is_read_anew(tmp_path: Path) -> None:
    tokens: list[str] = []

    async def check(request: web.Request) -> web.Response:
        tokens.append(request.headers["Authorization"])
        return web.json_response({"metadata": {}}, status=200 if tokens[-1] == "Bearer second" else 401)

    async def ask() -> Any:
        async with _serving(check, tmp_path / "kubeconfig") as (client, port):
            for _ in range(2):
                with pytest.raises(ApiError):
                    await client.get(JOBS, "demo", "a")
            _write_kubeconfig(tmp_path / "kubeconfig", port, "second")
            return await client.get(JOBS, "demo", "a")

    assert asyncio.run(ask()) == {"metadata": {}}
    assert tokens == ["Bearer first", "Bearer first", "Bearer second"]


def test_the_operator_needs_none_of_the_generated_models_that_its_image_leaves_out(tmp_path: Path) -> None:
    _write_kubeconfig(tmp_path / "kubeconfig", 9, "first")
    program = f"""
import asyncio, re, sys
from pathlib import Path

class LeftOut:
    def find_spec(self, name, path=None, target=None):
        if re.match(r"kubernetes\\.(aio\\.)?client\\.(models|api)\\.", name):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, LeftOut())
from finetune_operator.__main__ import Client, ClientError, Metrics
from finetune_operator.runtime.resources import JOBS

async def ask():
    client = Client(Metrics(), Path({str(tmp_path / "kubeconfig")!r}))
    try:
        await client.create(JOBS, "demo", {{"spec": [1, "a", None, True]}})
    except ClientError as error:
        print(type(error).__name__)
    await client.close()

asyncio.run(ask())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout == "UnreachableError\n", done.stderr

"""What the operator's benchmarks share: an operator process under measurement and a client that loads an API server.

The operator is `python -m finetune_operator` with its default settings, as it runs in a pod. The client sends prepared
bytes over many connections, so that its own cost stays small beside that of the API server.
"""

import asyncio
import base64
import contextlib
import json
import os
import ssl
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from finetune_api import group
from finetune_devcluster import ports, waiting

Manifest = dict[str, Any]

CONNECTIONS = 16
"""Requests of the load client in flight at once (a choice: the API server of a two-core machine is busy with them)."""
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class OperatorProcess:
    """A running operator."""

    process: subprocess.Popen[bytes]
    metrics_port: int

    def read_series(self) -> dict[str, float]:
        """Return all samples of /metrics by their text.

        Raises:
            NotYetError: the operator isn't ready.
        """
        self._fetch("/readyz")
        lines = [line for line in self._fetch("/metrics").splitlines() if line and not line.startswith("#")]
        return {key: float(value) for key, _, value in (line.rpartition(" ") for line in lines)}

    def read_memory_mib(self) -> float:
        """Return the resident memory."""
        return self._read_memory_mib("VmRSS:")

    def read_peak_mib(self) -> float:
        """Return the largest resident memory since the start."""
        return self._read_memory_mib("VmHWM:")

    def read_cpu_seconds(self) -> float:
        """Return the time this process has spent on the CPU, user and system."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND

    def _read_memory_mib(self, key: str) -> float:
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(float(line.split()[1]) / 1024 for line in lines if line.startswith(key))

    def _fetch(self, path: str) -> str:
        if self.process.poll() is not None:
            raise RuntimeError(f"the operator ended with {self.process.returncode}")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"http://127.0.0.1:{self.metrics_port}{path}", timeout=30) as answer:
                text: str = answer.read().decode()
                return text
        except OSError as error:
            raise waiting.NotYetError(str(error)) from error


@contextlib.contextmanager
def running_operator(kubeconfig: Path, log: Path) -> Iterator[OperatorProcess]:
    """Run an operator until the end of the block; what it logs is appended to a file."""
    health_port, metrics_port = ports.choose_ports(2)
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()} | {
        "KUBECONFIG": str(kubeconfig),
        "FINETUNE_TRAINER_IMAGE": "registry.example.com/trainer:1",
        "FINETUNE_HEALTH_PORT": str(health_port),
        "FINETUNE_METRICS_PORT": str(metrics_port),
    }
    command = [sys.executable, "-m", "finetune_operator"]
    with (
        log.open("ab") as output,
        subprocess.Popen(command, env=environment, stdout=output, stderr=output) as process,
    ):
        try:
            yield OperatorProcess(process, metrics_port)
        finally:
            process.terminate()


class LoadClient:
    """Sends JSON to an API server as an administrator."""

    def __init__(self, session: aiohttp.ClientSession, server: str) -> None:
        self._session = session
        self._server = server

    async def create(self, path: str, manifest: Manifest) -> None:
        """Create an object in the collection at a path."""
        await self._send("POST", path, manifest, "application/json")

    async def merge(self, path: str, patch: Manifest) -> None:
        """Apply a JSON merge patch to the object at a path."""
        await self._send("PATCH", path, patch, "application/merge-patch+json")

    async def list_items(self, path: str) -> list[Manifest]:
        """Return all objects of a collection."""
        async with self._session.get(f"{self._server}{path}") as answer:
            answer.raise_for_status()
            items: list[Manifest] = (await answer.json())["items"]
            return items

    async def delete_all(self, path: str) -> None:
        """Delete all objects of a collection; a busy API server needs more than the minute it gives one request."""
        async with self._session.delete(f"{self._server}{path}", params={"timeoutSeconds": "300"}) as answer:
            if answer.status not in (200, 504):
                raise RuntimeError(f"DELETE {path} ended with {answer.status}: {await answer.text()}")
        while await self.list_items(path):
            await asyncio.sleep(0.5)

    async def watch(self, path: str) -> AsyncIterator[Manifest]:
        """Yield the events of a collection from now on, those that stand for what is there already first."""
        timeout = aiohttp.ClientTimeout(total=None)
        async with self._session.get(f"{self._server}{path}", params={"watch": "1"}, timeout=timeout) as answer:
            answer.raise_for_status()
            async for line in answer.content:
                yield json.loads(line)

    async def _send(self, method: str, path: str, body: Manifest, content_type: str) -> None:
        headers = {"Content-Type": content_type}
        url, data = f"{self._server}{path}", json.dumps(body).encode()
        async with self._session.request(method, url, data=data, headers=headers) as answer:
            if answer.status >= 300:
                raise RuntimeError(f"{method} {path} ended with {answer.status}: {await answer.text()}")
            await answer.read()


@contextlib.asynccontextmanager
async def connect(kubeconfig: Path) -> AsyncIterator[LoadClient]:
    """Yield a client for the cluster of a kubeconfig that the devcluster wrote."""
    document = json.loads(kubeconfig.read_text())
    cluster, user = document["clusters"][0]["cluster"], document["users"][0]["user"]
    authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
    context = ssl.create_default_context(cadata=authority)
    with tempfile.NamedTemporaryFile() as pair:
        pair.write(base64.b64decode(user["client-certificate-data"]))
        pair.write(base64.b64decode(user["client-key-data"]))
        pair.flush()
        context.load_cert_chain(pair.name)
    connector = aiohttp.TCPConnector(ssl=context, limit=0)
    async with aiohttp.ClientSession(connector=connector, auto_decompress=True, read_bufsize=2**22) as session:
        yield LoadClient(session, cluster["server"])


async def run_all(coroutines: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run all of them together; the first failure cancels the rest."""
    async with asyncio.TaskGroup() as tasks:
        for coroutine in coroutines:
            tasks.create_task(coroutine)


async def run_few(coroutines: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run all of them, `CONNECTIONS` at a time."""
    waiting_list = iter(coroutines)

    async def work() -> None:
        for coroutine in waiting_list:
            await coroutine

    await run_all(work() for _ in range(CONNECTIONS))


def build_path(namespace: str, name: str = "", subresource: str = "") -> str:
    """Return the path of the FineTuneJobs of a namespace, or of one of them."""
    parts = ["/apis", group.API_VERSION, "namespaces", namespace, group.PLURAL, name, subresource]
    return "/".join(part for part in parts if part)


def build_job(namespace: str, name: str) -> Manifest:
    """Return a FineTuneJob as users write it."""
    return {
        "apiVersion": group.API_VERSION,
        "kind": group.KIND,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "task": "CausalLM",
            "model": {"uri": "s3://models/base/"},
            "data": [{"name": "text", "train": {"uri": "s3://datasets/text.txt"}}],
            "output": {"uri": f"s3://runs/{name}"},
        },
    }

"""An API server as a function: the operator's client, answered by a script instead of a socket.

For answers a healthy API server can't be brought to give at a chosen request: refusals, namespaces that vanish.
"""

import json
from collections.abc import Callable

from manifests import Manifest

from finetune_operator.jobs.kind import FineTuneJobs
from finetune_operator.runtime.api_client import Client
from finetune_operator.runtime.health import Health
from finetune_operator.runtime.metrics import Metrics
from finetune_operator.runtime.runner import Runner
from finetune_operator.settings import Settings

Answer = tuple[int, Manifest]


def refuse(code: int, message: str) -> Answer:
    """Answer as the API server does where it refuses."""
    return code, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message}


class ScriptedApi:
    """Answers requests and keeps them.

    Attributes:
        answer: method, path and body in, code and body out; None: the body comes back, with 200.
        requests: method, path and body of every request, in order.
    """

    def __init__(self, answer: Callable[[str, str, Manifest], Answer | None]) -> None:
        self.answer = answer
        self.requests: list[tuple[str, str, Manifest]] = []
        self.metrics = Metrics()

    def connect(self) -> Client:
        """Return the operator's connection to it."""
        return _ScriptedClient(self)

    def list_writes(self) -> list[str]:
        """Return method and last part of the path of all requests that change something."""
        return [f"{method} {path.rpartition('/')[2]}" for method, path, _ in self.requests if method != "GET"]


class _ScriptedClient(Client):
    def __init__(self, api: ScriptedApi) -> None:
        super().__init__(api.metrics)
        self._script = api

    async def _send(
        self,
        method: str,
        path: str,
        query: list[tuple[str, str]],  # noqa: ARG002 - the method that it replaces has it
        headers: dict[str, str],  # noqa: ARG002 - the method that it replaces has it
        body: Manifest | None,
    ) -> tuple[int, bytes]:
        self._script.requests.append((method, path, body or {}))
        code, answer = self._script.answer(method, path, body or {}) or (200, body)
        return code, json.dumps(answer).encode()


class OperatorParts:
    """The parts of an operator process, put together as `__main__` does, without kopf."""

    def __init__(self, api: ScriptedApi, settings: Settings) -> None:
        self.health = Health(api.metrics, settings.resync_seconds)
        client = api.connect()
        runner = Runner(
            FineTuneJobs(settings, api.metrics),
            client,
            api.metrics,
            self.health,
            namespaces=settings.watched_namespaces,
            resync_seconds=settings.resync_seconds,
            progress_seconds=settings.progress_seconds,
        )
        self.controller, self.resync = runner.controller, runner.resync

"""An API server as a function: lightkube's real client, answered by a script instead of a socket.

For answers a healthy API server can't be brought to give at a chosen request: refusals, namespaces that vanish.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx2
import lightkube
from lightkube.config.kubeconfig import KubeConfig
from lightkube.config.models import Cluster, User
from manifests import Manifest

from finetune_operator.runtime import client as cluster
from finetune_operator.runtime.metrics import Metrics

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
        self.metrics = Metrics(lambda: datetime.now(UTC))

    def connect(self) -> cluster.Cluster:
        """Return the operator's connection to it."""
        config = KubeConfig.from_one(cluster=Cluster(server="http://api.invalid"), user=User(token="x"))
        transport = httpx2.MockTransport(self._handle)
        client = lightkube.AsyncClient(config=config, lazy=False, trust_env=False, transport=transport)
        return cluster.Cluster(client, self.metrics)

    def list_writes(self) -> list[str]:
        """Return method and last part of the path of all requests that change something."""
        return [f"{method} {path.rpartition('/')[2]}" for method, path, _ in self.requests if method != "GET"]

    def _handle(self, request: httpx2.Request) -> httpx2.Response:
        body: Any = json.loads(request.content) if request.content else {}
        self.requests.append((request.method, request.url.path, body))
        code, answer = self.answer(request.method, request.url.path, body) or (200, body)
        return httpx2.Response(code, json=answer)

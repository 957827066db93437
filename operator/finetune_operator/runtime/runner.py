"""One kind at work: its controller, its resync and the questions to its pods, over the process's one connection."""

from collections.abc import Coroutine, Sequence

import kopf

from finetune_operator.runtime import access, pod_poller
from finetune_operator.runtime.api_client import Client
from finetune_operator.runtime.controller import Controller
from finetune_operator.runtime.health import Health
from finetune_operator.runtime.kind import Kind
from finetune_operator.runtime.metrics import Metrics
from finetune_operator.runtime.pod_poller import PodPoller
from finetune_operator.runtime.resync import Resync


class Runner:
    """Runs one kind.

    Args:
        namespaces: that are watched; none: all.
        resync_seconds: between two comparisons of everything with the API server.
        progress_seconds: between two requests to one running pod.
    """

    def __init__(
        self,
        kind: Kind,
        client: Client,
        metrics: Metrics,
        health: Health,
        *,
        namespaces: Sequence[str],
        resync_seconds: float,
        progress_seconds: float,
    ) -> None:
        self._kind = kind
        self._client = client
        self._namespaces = namespaces
        self.poller = PodPoller(kind, metrics, seconds=progress_seconds)
        self.controller = Controller(kind, client, metrics, health, self.poller)
        self.resync = Resync(self.controller, client, metrics, health, namespaces=namespaces, seconds=resync_seconds)

    async def prepare(self, settings: kopf.OperatorSettings) -> None:
        """Check that the kind can be run, and let the watch leave its finished objects out where that is possible.

        Raises:
            AccessError: the kind is missing, or a rule in every watched namespace.
            ClientError: the API server can't be reached.
        """
        resource, selector = self._kind.resource, self._kind.unfinished_selector
        await access.check_access(self._client, resource, self._namespaces)
        if await access.can_select(self._client, resource, self._namespaces, selector):
            settings.watching.field_selectors[resource.group, resource.version, resource.plural] = selector

    def build_loops(self, workers: int) -> list[Coroutine[None, None, None]]:
        """Return everything that is to run, for ever.

        Args:
            workers: objects reconciled at the same time.
        """
        return [
            *self.controller.build_loops(workers),
            *(self.poller.work(self.controller.queue.add) for _ in range(pod_poller.PARALLEL)),
            self.resync.run_forever(),
        ]

    async def close(self) -> None:
        """Close the connections to pods."""
        await self.poller.close()

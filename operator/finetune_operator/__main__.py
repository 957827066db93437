"""Start-up: settings, logs, metrics, then kopf until a signal. `python -m finetune_operator`."""

import logging
import random
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import cast

import kopf

from finetune_api import group
from finetune_operator import settings
from finetune_operator.handlers import Memo
from finetune_operator.runtime import client as cluster
from finetune_operator.runtime import logs
from finetune_operator.runtime.controller import Worker
from finetune_operator.runtime.health import Health
from finetune_operator.runtime.metrics import Metrics
from finetune_operator.settings import Settings

logger = logging.getLogger(__name__)

_FIRST_BACKOFF_SECONDS, _LAST_BACKOFF_SECONDS = 1.0, 60.0


class EndlessBackoffs:
    """Pauses between tries of kopf's own requests: jittered, doubling to a minute, without end.

    kopf iterates anew for every request, and a watch that ran out of pauses would end the process in the middle of a
    control-plane outage. No `__len__`: there is none.
    """

    def __iter__(self) -> Iterator[float]:
        pause = _FIRST_BACKOFF_SECONDS
        while True:
            yield pause * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, no secret
            pause = min(_LAST_BACKOFF_SECONDS, pause * 2)


class NoDiffBase(kopf.DiffBaseStorage):
    """Keeps no last-seen state.

    By default kopf copies every object it hears of, to compare it with what a handler for changes saw last. There is
    no such handler here, and the copies cost more than all else kopf does for an event.
    """

    def build(self, **_: object) -> kopf.BodyEssence:
        """Return nothing to compare."""
        return cast(kopf.BodyEssence, {})

    def fetch(self, **_: object) -> None:
        """Return that nothing was kept."""

    def store(self, **_: object) -> None:
        """Keep nothing."""


def build_kopf_settings() -> kopf.OperatorSettings:
    """Set what kopf must do otherwise than by default."""
    result = kopf.OperatorSettings()
    prefix = group.GROUP
    result.persistence.finalizer = f"{prefix}/finalizer"
    result.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=prefix)
    result.persistence.diffbase_storage = NoDiffBase()
    result.posting.enabled = False
    result.networking.request_timeout = 30
    result.networking.connect_timeout = 10
    result.networking.error_backoffs = EndlessBackoffs()
    result.watching.inactivity_timeout = 70  # the API server sends a bookmark every 60 s
    result.watching.server_timeout = 300
    result.watching.chunk_size = cluster.PAGE_SIZE
    result.watching.label_selectors["batch", "v1", "jobs"] = group.LABEL_JOB
    result.watching.label_selectors["", "v1", "pods"] = group.LABEL_JOB
    result.queueing.idle_timeout = 5.0
    result.scanning.disabled = True
    result.peering.standalone = True
    result.process.ultimate_exiting_timeout = 25  # below the pod's grace period of 30 s
    return result


def run(configuration: Settings) -> None:
    """Run the operator until it is told to stop."""
    metrics = Metrics(lambda: datetime.now(UTC))
    health = Health(metrics, configuration.resync_seconds)
    worker = Worker(cluster.connect(metrics), configuration, metrics, health)
    kopf.run(
        settings=build_kopf_settings(),
        standalone=True,
        clusterwide=not configuration.watched_namespaces,
        namespaces=configuration.watched_namespaces,
        memo=Memo(settings=configuration, metrics=metrics, health=health, worker=worker),
    )


def main() -> int:
    """Start the operator; the exit code is 78 (EX_CONFIG) where the environment can't be used."""
    try:
        configuration = settings.load_settings()
    except settings.SettingsError as error:
        logs.configure_logging("json", "INFO")
        logger.error("%s", error)
        return 78
    logs.configure_logging(configuration.log_format, configuration.log_level)
    run(configuration)
    return 0


if __name__ == "__main__":
    sys.exit(main())

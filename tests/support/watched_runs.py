"""A run on the node as somebody sees it who looks many times a second: its status, its pod, what that says of itself.

What a pod says of itself is asked of the pod, so it shows what the status must be true to.
"""

import http.client
import itertools
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from finetune_api import group, live, run
from finetune_api.kinds.finetunejob.status import FineTuneJobStatus
from finetune_api.live import LiveProgress
from finetune_demo import runs

_API_SECONDS = 0.7
"""Between two looks at the API server, which others need too."""


@dataclass
class PodSeen:
    """What one pod was seen to do: the steps it began after and reached."""

    attempt: str
    stage: str
    begin: int | None = None
    step: int = 0


@dataclass
class Sight:
    """The run at one moment; `pod` is the one that runs and nobody has touched yet."""

    status: FineTuneJobStatus
    pod: dict[str, Any] | None = None
    progress: LiveProgress | None = None

    @property
    def is_finished(self) -> bool:
        return runs.is_finished(self.status)

    @property
    def phase(self) -> str:
        """What the pod does: its own word, or that it doesn't answer yet."""
        return (self.progress.phase if self.progress else None) or "start"


class StoppedError(Exception):
    """Whoever watches was told to end."""


@dataclass
class Watch:
    """Looks at one run.

    Attributes:
        product: what runs it.
        stop: ends every look.
        touched: uids of pods that are to end.
        pods: what every pod seen did, by uid, in order.
    """

    product: Any
    namespace: str
    name: str
    stop: threading.Event
    touched: set[str] = field(default_factory=set)
    pods: dict[str, PodSeen] = field(default_factory=dict)
    _sight: Sight | None = None
    _asked_at: float = 0.0

    def look(self) -> Sight:
        """Return where the run stands now."""
        if self.stop.is_set():
            raise StoppedError
        if self._sight is None or time.monotonic() - self._asked_at > _API_SECONDS:
            self._sight, self._asked_at = self._ask_api_server(), time.monotonic()
        sight = self._sight
        sight.progress = self._ask_pod(sight.pod) if sight.pod is not None else None
        return sight

    def touch(self, pod: dict[str, Any]) -> None:
        """Leave a pod out from now on: it has been told to end, or was killed."""
        self.touched.add(pod["metadata"]["uid"])
        self._sight = None

    def count_lost_steps(self) -> int:
        """Count the steps that pods were seen to make again."""
        pods = [pod for pod in self.pods.values() if pod.stage == run.Stage.TRAIN and pod.begin is not None]
        return sum(max(0, former.step - (pod.begin or 0)) for former, pod in itertools.pairwise(pods))

    def _ask_api_server(self) -> Sight:
        job = self.product.client.get(runs.FINE_TUNE_JOB, self.name, self.namespace)
        status = FineTuneJobStatus.model_validate(job["status"])
        running = [
            pod
            for pod in self.product.list_pods(self.namespace, self.name, phase="Running")
            if "deletionTimestamp" not in pod["metadata"] and pod["metadata"]["uid"] not in self.touched
        ]
        return Sight(status, running[-1] if running else None)

    def _ask_pod(self, pod: dict[str, Any]) -> LiveProgress | None:
        connection = http.client.HTTPConnection(pod["status"]["podIP"], run.METRICS_PORT, timeout=2)
        try:
            connection.request("GET", live.PROGRESS_PATH, headers={live.POD_HEADER: pod["metadata"]["uid"]})
            progress = LiveProgress.model_validate_json(connection.getresponse().read())
        except (OSError, http.client.HTTPException, ValidationError):
            # It hasn't begun, or it has ended.
            return None
        finally:
            connection.close()
        self._note(pod, progress)
        return progress

    def _note(self, pod: dict[str, Any], progress: LiveProgress) -> None:
        labels = pod["metadata"]["labels"]
        made = PodSeen(labels["batch.kubernetes.io/job-name"], labels[group.LABEL_STAGE])
        seen = self.pods.setdefault(pod["metadata"]["uid"], made)
        if progress.resumed_from_step is not None:
            seen.begin = progress.resumed_from_step
        seen.step = max(seen.step, progress.step or 0)

    def ask_for_checkpoint(self, pod: dict[str, Any]) -> None:
        """Let a pod save its state, as the operator does for the annotation."""
        connection = http.client.HTTPConnection(pod["status"]["podIP"], run.METRICS_PORT, timeout=5)
        try:
            connection.request("POST", live.CHECKPOINT_PATH, headers={live.POD_HEADER: pod["metadata"]["uid"]})
            connection.getresponse().read()
        except (OSError, http.client.HTTPException):
            # It has just ended: what follows befalls its successor.
            self._sight = None
        finally:
            connection.close()

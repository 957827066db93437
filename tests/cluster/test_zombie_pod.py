"""A pod that everybody thinks dead wakes up after its successor has published: it says so, ends, and changes nothing.

Its processes are stopped, and so is the runtime's shim that would carry out the kubelet's SIGKILL: the same as a node
that nobody reaches. The pod is then given up by force: deleted without grace, and its finalizer taken away, without
which it would stay, since its Job waits for its end.
"""

import json
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import disruption_sweep
import node_processes
import pytest
from disturbance_plans import RECIPES
from disturbed_runs import Bench
from watched_runs import Watch

from finetune_api.exits import ExitCode
from finetune_api.kinds.finetunejob.status import FineTuneJobStatus, Phase
from finetune_api.run import TERMINATION_LOG_PATH, Stage, TerminationMessage
from finetune_devcluster import api_client, state, waiting

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

STOPPED_AT = 0.3
"""Share of the steps."""
END_SECONDS = 300.0


@dataclass
class Zombie:
    """What became of the run, of the pod that was thought dead, and of what was published before it woke up.

    Attributes:
        before: digest of each of the run's objects by key when its successor had published.
        after: the same when the pod had ended.
    """

    uid: str
    status: FineTuneJobStatus
    before: dict[str, str]
    after: dict[str, str]
    message: TerminationMessage
    log: str


@pytest.fixture(scope="module")
def bench(product: Any) -> Iterator[Bench]:
    with disruption_sweep.open_bench(product) as bench:
        yield bench


@pytest.fixture(scope="module")
def zombie(bench: Bench) -> Zombie:
    """The pod of a run, stopped, replaced and woken up."""
    recipe = RECIPES["lora"]
    watch = bench.apply("zombie", recipe, None)
    sight = bench.wait(watch, "some steps", lambda sight: _share(sight.progress, recipe.steps) >= STOPPED_AT)
    assert sight.pod is not None
    uid = str(sight.pod["metadata"]["uid"])
    processes = node_processes.find_trainers(bench.product.running.name, uid)
    shim = node_processes.find_parent(processes[0])
    message_path = Path(f"/proc/{processes[0]}/root{TERMINATION_LOG_PATH}")
    with message_path.open() as message, _find_log(bench, sight.pod).open() as log:
        # The kubelet removes both files with the pod, as soon as the shim answers again.
        node_processes.send(processes, signal.SIGSTOP)
        node_processes.send([shim], signal.SIGSTOP)
        try:
            _give_up(bench, sight.pod["metadata"]["name"])
            watch.touch(sight.pod)
            status = bench.finish(watch)
            before = _digest_objects(bench, watch)
            node_processes.send(processes, signal.SIGCONT)
            _wait_for_end(bench, uid)
            after = _digest_objects(bench, watch)
            told = TerminationMessage.model_validate_json(message.read())
        finally:
            node_processes.send([*processes, shim], signal.SIGCONT)
        return Zombie(uid, status, before, after, told, _read_log(log))


def _give_up(bench: Bench, name: str) -> None:
    client = bench.product.client
    client.delete(api_client.POD, name, bench.namespace, grace_seconds=0)
    client.patch(api_client.POD, name, {"metadata": {"finalizers": None}}, bench.namespace)


def _share(progress: Any, steps: int) -> float:
    is_training = progress is not None and progress.stage == Stage.TRAIN
    return (progress.step or 0) / steps if is_training else 0.0


def _find_log(bench: Bench, pod: dict[str, Any]) -> Path:
    metadata = pod["metadata"]
    folder = state.state_directory(bench.product.running.name) / "pod-logs"
    return folder / f"{metadata['namespace']}_{metadata['name']}_{metadata['uid']}" / "trainer" / "0.log"


def _digest_objects(bench: Bench, watch: Watch) -> dict[str, str]:
    product, folder = bench.product, f"{bench.namespace}/{watch.name}"
    return {key: product.sha256(product.read(f"s3://runs/{key}")) for key in product.list_keys("runs", folder)}


def _wait_for_end(bench: Bench, uid: str) -> None:
    def check() -> None:
        if left := node_processes.find_trainers(bench.product.running.name, uid):
            raise waiting.NotYetError(f"processes {left} run")

    waiting.wait_for("the end of the pod that was thought dead", check, END_SECONDS)


def _read_log(log: Any) -> str:
    """Read what the shim passes on once it answers again, up to the launcher's last word."""
    lines: list[str] = []

    def read() -> str:
        lines.extend(log.read().splitlines())
        if not any("had published" in line and "Completed" in line for line in lines):
            raise waiting.NotYetError(f"{len(lines)} lines, the last: {lines[-1:]}")
        return "\n".join(lines)

    return waiting.wait_for("the log of the pod that was thought dead", read, 30.0)


def test_the_successor_of_a_pod_that_is_thought_dead_publishes(zombie: Zombie) -> None:
    assert zombie.status.phase == Phase.SUCCEEDED, zombie.status.failure


def test_a_pod_that_wakes_up_finds_the_manifest_says_so_and_ends(zombie: Zombie) -> None:
    assert (zombie.message.exit_code, zombie.message.reason) == (ExitCode.OK, "Completed")
    assert "another pod" in zombie.message.message
    assert "had published this run already" in zombie.message.message
    assert zombie.message.manifest_sha256 == zombie.status.artifacts.manifest_sha256  # type: ignore[union-attr]
    assert zombie.message.message in zombie.log


def test_a_pod_that_wakes_up_touches_nothing_that_is_published_and_leaves_nothing(zombie: Zombie, bench: Bench) -> None:
    assert bench.read_published(zombie.status).weights
    assert zombie.after == zombie.before
    manifest = json.loads(bench.product.read(zombie.status.artifacts.manifest_uri))  # type: ignore[union-attr]
    assert manifest["writer"] != zombie.uid

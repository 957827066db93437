"""Carries out one plan: applies the run, waits for each moment, does what befalls it, and says what came out wrong.

Every run has a namespace's Service of its own for S3, with a proxy behind it, so that an outage is its own.
"""

import json
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import disturbance_plans
import node_processes
from disturbance_plans import Disturbance, Kind, Moment, Plan, Recipe
from fault_proxy import Fault, FaultProxy
from kubernetes.client import ApiException
from watched_runs import Sight, Watch

from finetune_api import artifacts, group
from finetune_api.artifacts import RunManifest
from finetune_api.kinds.finetunejob.status import ConditionType, FineTuneJobStatus, Phase, Reason
from finetune_api.kinds.status_conditions import is_true
from finetune_api.metrics import TrainerPhase
from finetune_api.run import Stage
from finetune_demo import installation, runs
from finetune_devcluster import api_client, waiting

DEADLINE_SECONDS = 1200.0
_LATE_SHARE = 0.3
"""A phase that was not seen for so many more of the steps has been missed, and it is done where the run is."""


@dataclass
class Published:
    """What a run has published, as far as another run of the same spec must publish the same."""

    weights: dict[str, str]
    metrics: dict[str, list[dict[str, Any]]]


@dataclass
class Done:
    """What was done to a run, and what its pod said that it was doing; empty: the run had ended by then."""

    kind: Kind
    moment: Moment
    seen: str
    step: int


@dataclass
class Outcome:
    """A disturbed run, and what is wrong with it in sentences."""

    plan: Plan
    seconds: float
    done: list[Done]
    status: dict[str, Any]
    lost_steps_seen: int
    wrong: list[str] = field(default_factory=list)


@dataclass
class Bench:
    """Where runs are carried out."""

    product: Any
    namespace: str
    stop: threading.Event = field(default_factory=threading.Event)

    def apply(self, name: str, recipe: Recipe, every_seconds: int | None, endpoint_url: str = "") -> Watch:
        """Apply a run that reaches S3 there, or without a proxy."""
        folder = f"s3://datasets/disturbed/{recipe.task}.jsonl"
        spec = disturbance_plans.build_spec(recipe, every_seconds) | {
            "data": [{"name": "rows", "train": {"uri": folder}}],
            "model": {"uri": f"s3://models/tiny-{recipe.model}/"},
            "output": {"uri": f"s3://runs/{self.namespace}/{name}"},
            "storage": {
                "secretName": "s3-credentials",
                "endpointURL": endpoint_url or f"http://s3.{self.namespace}.svc:8333",
                "addressingStyle": "path",
            },
        }
        metadata = {"name": name, "namespace": self.namespace}
        manifest = {"apiVersion": "finetune.dev/v1alpha1", "kind": "FineTuneJob", "metadata": metadata, "spec": spec}
        runs.apply_run(self.product.client, manifest)
        return Watch(self.product, self.namespace, name, self.stop)

    def wait(self, watch: Watch, what: str, is_reached: Callable[[Sight], bool]) -> Sight:
        """Look until the run is somewhere or has ended."""

        def look() -> Sight:
            sight = watch.look()
            if not sight.is_finished and not is_reached(sight):
                raise waiting.NotYetError(f"{sight.status.phase}, {sight.phase}")
            return sight

        return waiting.wait_for(f"{watch.name}: {what}", look, DEADLINE_SECONDS)

    def finish(self, watch: Watch) -> FineTuneJobStatus:
        """Wait for the end of a run."""
        return self.wait(watch, "the end", lambda _: False).status

    def read_published(self, status: FineTuneJobStatus) -> Published:
        """Verify every file of a run against its manifest, and return what must be the same in others.

        Raises:
            AssertionError: a file or the manifest isn't what it is said to be.
        """
        if status.artifacts is None:
            raise AssertionError(f"nothing is published: {status.failure}")
        content = self.product.read(status.artifacts.manifest_uri)
        assert self.product.sha256(content) == status.artifacts.manifest_sha256
        manifest = RunManifest.model_validate_json(content)
        root = status.artifacts.manifest_uri.rsplit("/", 1)[0]
        for entry in manifest.files:
            found = self.product.read(f"{root}/{entry.path}")
            assert (len(found), self.product.sha256(found)) == (entry.size, entry.sha256), entry.path
        output = root.rsplit("/runs/", 1)[0]
        current = json.loads(self.product.read(f"{output}/{artifacts.CURRENT}"))
        assert current["manifestSHA256"] == status.artifacts.manifest_sha256
        weights = {
            entry.path.split("/", 3)[3]: entry.sha256 for entry in manifest.files if entry.path.endswith(".safetensors")
        }
        return Published(
            weights, {key: [item.model_dump() for item in found] for key, found in manifest.metrics.items()}
        )

    def carry_out(self, plan: Plan, proxy: FaultProxy, endpoint_url: str, want: Published) -> Outcome:
        """Carry out a plan and compare the run with the undisturbed one."""
        began = time.monotonic()
        watch = self.apply(f"run-{plan.seed}", disturbance_plans.RECIPES[plan.recipe], plan.every_seconds, endpoint_url)
        done = [self._disturb(watch, plan, item, proxy) for item in plan.disturbances]
        status = self.finish(watch)
        stored = status.model_dump(mode="json", exclude_none=True)
        outcome = Outcome(plan, time.monotonic() - began, done, stored, watch.count_lost_steps())
        outcome.wrong = self._find_wrong(status, watch, done, want)
        return outcome

    def _disturb(self, watch: Watch, plan: Plan, disturbance: Disturbance, proxy: FaultProxy) -> Done:
        steps = disturbance_plans.RECIPES[plan.recipe].steps
        sight = self.wait(watch, disturbance.moment, lambda sight: _is_time(sight, disturbance, steps))
        done = Done(disturbance.kind, disturbance.moment, "", 0)
        if sight.is_finished or sight.pod is None:
            return done
        done.seen, done.step = sight.phase, (sight.progress.step if sight.progress else 0) or 0
        if disturbance.moment is Moment.CHECKPOINT:
            watch.ask_for_checkpoint(sight.pod)
            # Into its writing, its upload or its commit, as chance will have it.
            self.stop.wait(disturbance.seconds / 100)
        self._act(watch, disturbance, sight.pod, proxy)
        return done

    def _act(self, watch: Watch, disturbance: Disturbance, pod: dict[str, Any], proxy: FaultProxy) -> None:
        name, kind = pod["metadata"]["name"], disturbance.kind
        client = self.product.client
        if kind in disturbance_plans.ENDS_POD:
            watch.touch(pod)
        if kind in (Kind.SIGTERM, Kind.KILL_LAUNCHER, Kind.KILL_RANK):
            found = node_processes.find_trainers(self.product.running.name, pod["metadata"]["uid"])
            number = signal.SIGTERM if kind is Kind.SIGTERM else signal.SIGKILL
            node_processes.send(found[1:2] if kind is Kind.KILL_RANK else found[:1], number)
        elif kind in (Kind.DELETE, Kind.EVICT):
            # It may have ended by itself just now.
            with suppress(ApiException):
                if kind is Kind.DELETE:
                    client.delete(api_client.POD, name, self.namespace)
                else:
                    client.evict(name, self.namespace)
        elif kind is Kind.SUSPEND:
            self.product.patch_job(self.namespace, watch.name, {"spec": {"runPolicy": {"suspend": True}}})
            self.wait(watch, "suspended", lambda sight: is_true(sight.status.conditions, ConditionType.SUSPENDED))
            self.product.patch_job(self.namespace, watch.name, {"spec": {"runPolicy": {"suspend": False}}})
        elif kind is Kind.OPERATOR:
            for operator in client.list(api_client.POD, installation.OPERATOR_NAMESPACE):
                with suppress(ApiException):
                    client.delete(
                        api_client.POD, operator["metadata"]["name"], installation.OPERATOR_NAMESPACE, grace_seconds=0
                    )
        else:
            _break_s3(proxy, kind, disturbance.seconds)

    def _find_wrong(self, status: FineTuneJobStatus, watch: Watch, done: list[Done], want: Published) -> list[str]:
        if status.phase != Phase.SUCCEEDED:
            return [f"the run ended {status.phase}: {status.failure}"]
        try:
            found = self.read_published(status)
        except AssertionError as error:
            return [f"what is published doesn't verify: {error}"]
        wrong = []
        if found.weights != want.weights:
            wrong.append(f"the weights differ: {found.weights}, not {want.weights}")
        if found.metrics != want.metrics:
            wrong.append(f"the metrics differ: {found.metrics}, not {want.metrics}")
        return wrong + _find_untrue(status, watch, done)


def _find_untrue(status: FineTuneJobStatus, watch: Watch, done: list[Done]) -> list[str]:
    """Compare what the status says with what the pods were seen to do."""
    untrue = []
    begins = {pod.attempt: pod.begin for pod in watch.pods.values() if pod.stage == Stage.TRAIN}
    for attempt in status.attempts:
        begin = begins.get(attempt.job)
        if attempt.resumed_from_step is not None and begin is not None and attempt.resumed_from_step != begin:
            untrue.append(f"{attempt.job} says it began after step {attempt.resumed_from_step}, not {begin}")
    seen = watch.count_lost_steps()
    if status.lost_steps > seen:
        untrue.append(f"lostSteps is {status.lost_steps}, but {seen} were seen to be made again")
    told = sum(item.kind in disturbance_plans.TOLD_POD and bool(item.seen) for item in done)
    # Where another pod was faster, the node has refused one: that counts as much.
    told += sum(item.cause == Reason.POD_DISRUPTED and item.start_time is None for item in status.attempts)
    if status.preemption_count > told:
        untrue.append(f"preemptionCount is {status.preemption_count} after {told} interruptions")
    return untrue


def _is_time(sight: Sight, disturbance: Disturbance, steps: int) -> bool:
    """Tell whether a run is where it is to be disturbed, or, in the last resort, beyond."""
    if sight.pod is None:
        return False
    moment, progress = disturbance.moment, sight.progress
    is_training = sight.pod["metadata"]["labels"][group.LABEL_STAGE] == Stage.TRAIN
    if moment is Moment.PREPARE or not is_training:
        return moment is Moment.PREPARE
    if moment is Moment.FETCH or progress is None:
        return moment is Moment.FETCH
    if moment is Moment.PUBLISHING:
        return progress.phase == TrainerPhase.PUBLISH
    share = (progress.step or 0) / steps
    is_late = share > disturbance.share + _LATE_SHARE
    wanted = TrainerPhase.EVALUATE if moment is Moment.EVALUATION else TrainerPhase.TRAIN
    return share >= disturbance.share and (progress.phase == wanted or is_late)


def _break_s3(proxy: FaultProxy, kind: Kind, seconds: float) -> None:
    """Let S3 refuse everything for a while, or break off whatever it answers."""
    methods, many = ("GET", "HEAD", "PUT", "POST", "DELETE"), 10**9
    if kind is Kind.S3_REFUSES:
        faults = [Fault(method, many, status=503, code="SlowDown") for method in methods]
    else:
        faults = [Fault(method, many, body_bytes=100, is_reset=True) for method in methods]
    proxy.faults = faults
    timer = threading.Timer(seconds, lambda: setattr(proxy, "faults", []))
    timer.daemon = True
    timer.start()

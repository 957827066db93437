"""Objects as the API server returns them: a FineTuneJob, its child Jobs, their pods; and passes of the reconciler."""

import copy
import functools
import json
from datetime import UTC, datetime, timedelta
from typing import Any

from manifests import Manifest, make_manifest

from finetune_api import crd
from finetune_api.kinds import status_fields
from finetune_operator.jobs import observe, reconcile
from finetune_operator.runtime.kind import Answer, Children, Refusal
from finetune_operator.runtime.plan import Plan
from finetune_operator.settings import Settings

UID = "0a1b2c3d-0000-4000-8000-000000000001"
NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
SETTINGS = Settings(trainer_image="registry.example.com/finetune-trainer:1", unschedulable_grace_seconds=300)
PREPARED_SHA256, MANIFEST_SHA256 = "a" * 64, "b" * 64


def at(seconds: float) -> datetime:
    """Return a moment that many seconds after the tests' noon."""
    return NOW + timedelta(seconds=seconds)


def time_text(seconds: float) -> str:
    """Return that moment as Kubernetes writes it."""
    return status_fields.build_time(at(seconds))


def make_job(name: str = "movies", stored_status: Manifest | None = None, **edits: Any) -> Manifest:
    """Return a FineTuneJob as stored: defaults filled in by the schema, uid and resourceVersion set."""
    manifest = make_manifest(name, "demo", **edits)
    fill_defaults(manifest["spec"], _build_spec_schema())
    manifest["metadata"] |= {"uid": UID, "generation": 1, "resourceVersion": "100"}
    manifest["status"] = stored_status if stored_status is not None else {"observedGeneration": -1}
    return manifest


@functools.cache
def _build_spec_schema() -> Manifest:
    return dict(crd.build_schema()["properties"]["spec"])


def forget_generation(stored: Manifest) -> Manifest:
    """Return a status without the generations it has seen."""
    conditions = [item | {"observedGeneration": 0} for item in stored["conditions"]]
    return stored | {"observedGeneration": 0, "conditions": conditions}


def fill_defaults(value: Any, schema: Manifest) -> None:
    """Fill in the defaults of a structural schema, in place, as the API server does."""
    if isinstance(value, dict):
        for key, below in schema.get("properties", {}).items():
            if key not in value and "default" in below:
                value[key] = copy.deepcopy(below["default"])
            if key in value:
                fill_defaults(value[key], below)
    elif isinstance(value, list):
        for item in value:
            fill_defaults(item, schema.get("items", {}))


def make_child(created: Manifest, uid: str = "job-1", seconds: float = 0) -> Manifest:
    """Return a created Job as stored."""
    stored = copy.deepcopy(created)
    stored["metadata"] |= {"uid": uid, "resourceVersion": "1", "creationTimestamp": time_text(seconds)}
    stored["status"] = {"conditions": []}
    return stored


def end_child(child: Manifest, condition: str, seconds: float, reason: str = "", message: str = "") -> None:
    """Let the Job controller end a Job."""
    child["status"]["conditions"].append(
        {
            "type": condition,
            "status": "True",
            "reason": reason,
            "message": message,
            "lastTransitionTime": time_text(seconds),
        }
    )


def make_pod(child: Manifest, name: str = "", seconds: float = 0) -> Manifest:
    """Return the new pod of a Job."""
    metadata = child["metadata"]
    owner = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
    }
    return {
        "metadata": {
            "name": name or f"{metadata['name']}-abcde",
            "uid": f"uid-of-{name}",
            "resourceVersion": "1",
            "namespace": metadata["namespace"],
            "labels": dict(child["spec"]["template"]["metadata"]["labels"]),
            "annotations": dict(child["spec"]["template"]["metadata"]["annotations"]),
            "ownerReferences": [owner],
            "creationTimestamp": time_text(seconds),
        },
        "status": {"phase": "Pending"},
    }


def set_unschedulable(pod: Manifest, seconds: float, message: str = "0/3 nodes are available") -> None:
    """Let the scheduler find no node."""
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    pod["status"]["conditions"] = [condition | {"lastTransitionTime": time_text(seconds)}]


def hold_pod(pod: Manifest, reason: str, message: str = "") -> None:
    """Let the kubelet wait for something."""
    state = {"waiting": {"reason": reason, "message": message}}
    pod["status"] = {"phase": "Pending", "containerStatuses": [{"name": "trainer", "state": state}]}


def start_pod(pod: Manifest, seconds: float) -> None:
    """Let the container run."""
    state = {"running": {"startedAt": time_text(seconds)}}
    containers = [{"name": "trainer", "state": state}]
    pod["status"] = {"phase": "Running", "podIP": "10.0.0.7", "containerStatuses": containers}


def end_pod(
    pod: Manifest, code: int, seconds: float, text: str = "", *, reason: str = "", disruption: str = ""
) -> None:
    """Let the container end; it ran for the last ten seconds if it was never started."""
    statuses = pod["status"].get("containerStatuses", [{}])
    begin = statuses[0].get("state", {}).get("running", {}).get("startedAt", time_text(seconds - 10))
    ended = {"exitCode": code, "reason": reason or ("Completed" if code == 0 else "Error"), "message": text}
    state = {"terminated": ended | {"startedAt": begin, "finishedAt": time_text(seconds)}}
    pod["status"] = {
        "phase": "Succeeded" if code == 0 else "Failed",
        "containerStatuses": [{"name": "trainer", "state": state}],
    }
    if disruption:
        pod["status"]["conditions"] = [{"type": "DisruptionTarget", "status": "True", "message": disruption}]


def build_message(stage: str, attempt: int, code: int = 0, reason: str = "Completed", **fields: Any) -> str:
    """Write a termination message as the trainer does."""
    return json.dumps({"version": 1, "stage": stage, "attempt": attempt, "exitCode": code, "reason": reason} | fields)


def build_prepared_message(attempt: int = 1) -> str:
    """Write the message of a prepare stage that worked."""
    return build_message(
        "prepare",
        attempt,
        preparedSHA256=PREPARED_SHA256,
        runDigest="sha256:" + "d" * 64,
        data={"trainRows": 2000},
        memory={"predictedPeak": "1.9Gi"},
        resolved={"totalSteps": "250"},
    )


def build_trained_message(attempt: int = 1, **fields: Any) -> str:
    """Write the message of a train stage that worked."""
    return build_message(
        "train",
        attempt,
        manifestSHA256=MANIFEST_SHA256,
        artifactsURI=f"s3://runs/movies/runs/{UID}/attempts/{attempt}/model/",
        step=250,
        memory={"measuredPeak": "1.7Gi"},
        metrics={"tuned": [{"name": "accuracy", "value": "0.846", "split": "test"}]},
        **fields,
    )


def make_checkpoint(step: int, attempt: int = 1, seconds: float = 0, uid: str = UID, **fields: Any) -> Manifest:
    """Return a checkpoint as the trainer tells it, in the folder of the run."""
    uri = f"s3://runs/movies/runs/{uid}/attempts/{attempt}/checkpoints/step-{step:06}/"
    return {"step": step, "attempt": attempt, "uri": uri, "size": "12.0Mi", "time": time_text(seconds)} | fields


def list_kinds(plan: Plan) -> list[str]:
    """Return the kinds of a plan's actions."""
    return [type(action).__name__ for action in plan.actions]


def list_reasons(plan: Plan) -> list[str]:
    """Return the reasons of a plan's Events."""
    return [event.reason for event in plan.events]


class Cluster:
    """One FineTuneJob and its children, changed by plans as an API server would be."""

    def __init__(self, settings: Settings = SETTINGS, **edits: Any) -> None:
        self.settings = settings
        self.job = make_job(**edits)
        self.children: list[Manifest] = []
        self.pods: list[Manifest] = []
        self.events: list[Manifest] = []
        self.refusals: dict[str, Refusal] = {}
        self.answer: Answer | None = None
        self.made = 0

    @property
    def status(self) -> Manifest:
        """The stored status."""
        return dict(self.job["status"])

    def plan(self, seconds: float) -> Plan:
        """Decide, without doing anything."""
        children = Children(
            jobs=self.children, pods=self.pods, events=self.events, refusals=self.refusals, answer=self.answer
        )
        observed = observe.observe_children(UID, children)
        return reconcile.plan_job(observe.observe_job(self.job), observed, at(seconds), self.settings)

    def step(self, seconds: float, *, acts: bool = True) -> Plan:
        """Decide and apply; with `acts` False the process dies after the status was written."""
        plan = self.plan(seconds)
        self.job["status"] = plan.status
        if acts:
            for action in plan.actions:
                self.apply(action, seconds)
        return plan

    def tell(self, pod: Manifest, seconds: float, **report: Any) -> Plan:
        """Let a pod answer that, and decide."""
        self.answer = Answer(pod["metadata"]["uid"], json.dumps(report).encode())
        return self.step(seconds)

    def apply(self, action: Any, seconds: float) -> None:
        """Carry out one action."""
        name = type(action).__name__
        if name == "CreateJob":
            if not any(child["metadata"]["name"] == action.manifest["metadata"]["name"] for child in self.children):
                self.made += 1
                self.children.append(make_child(action.manifest, f"job-{self.made}", seconds))
            return
        for child in [item for item in self.children if item["metadata"]["uid"] == action.uid]:
            if name == "PatchJob":
                child["spec"] |= action.spec
            else:
                self.remove_child(child)

    def remove_child(self, child: Manifest) -> None:
        """Take a Job and its pods away."""
        self.children.remove(child)
        uid = child["metadata"]["uid"]
        self.pods = [pod for pod in self.pods if pod["metadata"]["ownerReferences"][0]["uid"] != uid]

    def add_pod(self, seconds: float = 0) -> Manifest:
        """Give the newest Job a pod."""
        pod = make_pod(self.children[-1], f"{self.children[-1]['metadata']['name']}-{len(self.pods)}", seconds)
        self.pods.append(pod)
        return pod

    def end(self, code: int, seconds: float, text: str = "", **how: Any) -> None:
        """Run the newest Job's pod to its end and let the Job controller draw the conclusion."""
        pod = self.add_pod(seconds - 10)
        end_pod(pod, code, seconds, text, **how)
        end_child(
            self.children[-1],
            "Complete" if code == 0 else "Failed",
            seconds,
            "" if code == 0 else "BackoffLimitExceeded",
        )

    def get_condition(self, name: str) -> tuple[str, str, str]:
        """Return status, reason and message of a condition."""
        [found] = [item for item in self.status["conditions"] if item["type"] == name]
        return (found["status"], found["reason"], found["message"])


def to_prepare(**edits: Any) -> Cluster:
    """Return a cluster whose prepare Job was just created."""
    cluster_state = Cluster(**edits)
    cluster_state.step(0)
    return cluster_state


def to_train(**edits: Any) -> Cluster:
    """Return a cluster whose prepare stage succeeded and whose train Job was just created, at 20 s."""
    cluster_state = to_prepare(**edits)
    cluster_state.step(1)
    cluster_state.end(0, 20, build_prepared_message())
    cluster_state.step(20)
    return cluster_state

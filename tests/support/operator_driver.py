"""A real operator process against a real API server, and a stand-in for the kubelet: pods are played by their status.

The operator runs under a ServiceAccount with exactly the rules it says it needs. Nothing sleeps for a fixed time: every
wait has a condition and a deadline, and says what it saw last.
"""

import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml
from kubernetes.client import ApiException
from manifests import Manifest, build_object, make_manifest

from finetune_api import crd, group, run
from finetune_devcluster import ports, waiting
from finetune_devcluster.api_client import Client, Kind
from finetune_operator.jobs.kind import RESOURCE
from finetune_operator.runtime import access

FINE_TUNE_JOB = Kind(group.API_VERSION, group.KIND)
JOB = Kind("batch/v1", "Job")
POD = Kind("v1", "Pod")
_CORE = "v1"
_RBAC = "rbac.authorization.k8s.io/v1"
_CRD = Kind("apiextensions.k8s.io/v1", "CustomResourceDefinition")

IMAGE = "registry.example.com/finetune-trainer:test"
DEADLINE_SECONDS = 20.0
START_SECONDS = 90.0
"""Importing its libraries takes a process 1.5 s of a core, and a busy machine has none to spare."""
ACCOUNT = "finetune-operator"


def install_crd(client: Client) -> None:
    """Apply the CRD and wait until it is served."""
    manifest = crd.build_crd()
    name = manifest["metadata"]["name"]
    client.apply(manifest)

    def check() -> None:
        conditions = client.get(_CRD, name)["status"].get("conditions") or []
        if not any(item["type"] == "Established" and item["status"] == "True" for item in conditions):
            raise waiting.NotYetError(str(conditions))

    waiting.wait_for(f"CRD {name}", check, 30.0)


def build_account_kubeconfig(
    client: Client,
    admin: Path,
    namespaces: Sequence[str],
    directory: Path,
    rules: Sequence[tuple[str, str, tuple[str, ...]]] = access.list_rules(RESOURCE),
) -> Path:
    """Make a ServiceAccount that may do just what the rules say in these namespaces; return a kubeconfig for it."""
    home = namespaces[0]
    account = Kind(_CORE, "ServiceAccount")
    client.create(build_object(account, ACCOUNT, home))
    secret = build_object(Kind(_CORE, "Secret"), ACCOUNT, home, type="kubernetes.io/service-account-token")
    secret["metadata"]["annotations"] = {"kubernetes.io/service-account.name": ACCOUNT}
    client.create(secret)
    policy = [
        {"apiGroups": [group_name], "resources": [resource], "verbs": list(verbs)}
        for group_name, resource, verbs in rules
    ]
    for name in namespaces:
        client.create(build_object(Kind(_RBAC, "Role"), ACCOUNT, name, rules=policy))
        client.create(
            build_object(
                Kind(_RBAC, "RoleBinding"),
                ACCOUNT,
                name,
                roleRef={"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": ACCOUNT},
                subjects=[{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": home}],
            )
        )

    def fetch_token() -> str:
        data = client.get(Kind(_CORE, "Secret"), ACCOUNT, home).get("data") or {}
        if "token" not in data:
            raise waiting.NotYetError("no token yet")
        return base64.b64decode(data["token"]).decode()

    config = yaml.safe_load(admin.read_text())
    config["users"] = [
        {"name": config["users"][0]["name"], "user": {"token": waiting.wait_for("token", fetch_token, 20)}}
    ]
    path = directory / "operator.kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return path


@dataclass
class Operator:
    """A `python -m finetune_operator` of its own."""

    kubeconfig: Path
    namespaces: Sequence[str]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    health_port: int = 0
    metrics_port: int = 0

    def start(self, *, wait: bool = True) -> None:
        """Start the process, by default until it is ready."""
        self.health_port, self.metrics_port = ports.choose_ports(2)
        environment = {key: value for key, value in os.environ.items() if "proxy" not in key.lower()} | {
            "KUBECONFIG": str(self.kubeconfig),
            "FINETUNE_TRAINER_IMAGE": IMAGE,
            "FINETUNE_WATCHED_NAMESPACES": ",".join(self.namespaces),
            "FINETUNE_HEALTH_PORT": str(self.health_port),
            "FINETUNE_METRICS_PORT": str(self.metrics_port),
            "FINETUNE_RESYNC_SECONDS": "30",
            **self.environment,
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "finetune_operator"], env=environment, stdout=log, stderr=log
            )
        if wait:
            waiting.wait_for("a ready operator", self._check_ready, START_SECONDS)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; return the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(timeout=30)

    def fetch(self, path: str, port: int | None = None) -> tuple[int, str]:
        """GET a path of the metrics port or another one."""
        url = f"http://127.0.0.1:{port or self.metrics_port}{path}"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(url, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def read_series(self) -> dict[str, float]:
        """Return all samples of /metrics by their text."""
        lines = [line for line in self.fetch("/metrics")[1].splitlines() if line and not line.startswith("#")]
        return {key: float(value) for key, _, value in (line.rpartition(" ") for line in lines)}

    def _check_ready(self) -> None:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"the operator ended with {self.process.returncode}: {self.log.read_text()[-3000:]}")
        try:
            code, text = self.fetch("/readyz")
        except OSError as error:
            raise waiting.NotYetError(str(error)) from error
        if code != 200:
            raise waiting.NotYetError(text)


@contextlib.contextmanager
def running_operator(
    kubeconfig: Path, namespaces: Sequence[str], directory: Path, environment: Mapping[str, str] | None = None
) -> Iterator[Operator]:
    """Run an operator for these namespaces until the end of the block; a failure shows its log."""
    operator = Operator(kubeconfig, namespaces, directory / "operator.log", environment or {})
    try:
        operator.start()
        yield operator
    finally:
        if operator.process is not None and operator.process.poll() is None:
            operator.stop()
        print(operator.log.read_text()[-6000:])  # pytest shows it where a test fails


@dataclass
class Stage:
    """A namespace on which FineTuneJobs are created and their pods are played."""

    client: Client
    namespace: str

    def submit(self, name: str, **edits: Any) -> "Run":
        """Create a small CPU job."""
        defaults: dict[str, Any] = {
            "spec__resources": {"gpus": 0, "cpu": "2", "memory": "2Gi", "scratch": "1Gi"},
            "spec__storage": {"secretName": "s3-credentials", "endpointURL": "http://s3.demo.svc:8333"},
        }
        manifest = make_manifest(name, self.namespace, **(defaults | edits))
        created = self.client.create(manifest)
        return Run(self, name, created["metadata"]["uid"])


@dataclass
class Run:
    """One FineTuneJob under test."""

    stage: Stage
    name: str
    uid: str

    def read(self) -> Manifest:
        """Read the FineTuneJob."""
        return self.stage.client.get(FINE_TUNE_JOB, self.name, self.stage.namespace)

    def read_status(self) -> Manifest:
        """Read its status."""
        return dict(self.read().get("status") or {})

    def build_checkpoint(self, step: int, attempt: int = 1) -> Manifest:
        """Return a checkpoint as the trainer tells it, saved just now in the run's own folder."""
        output = self.read()["spec"]["output"]["uri"]
        uri = f"{output}/runs/{self.uid}/attempts/{attempt}/checkpoints/step-{step:06}/"
        return {"step": step, "attempt": attempt, "uri": uri, "size": "12.0Mi", "time": _time(datetime.now(UTC))}

    def read_jobs(self) -> list[Manifest]:
        """Read its child Jobs, oldest name first."""
        found = self.stage.client.list(JOB, self.stage.namespace, labels={group.LABEL_UID: self.uid})
        return sorted(found, key=lambda item: str(item["metadata"]["name"]))

    def read_pods(self) -> list[Manifest]:
        """Read its pods, oldest first."""
        found = self.stage.client.list(POD, self.stage.namespace, labels={group.LABEL_UID: self.uid})
        return sorted(found, key=lambda item: str(item["metadata"]["creationTimestamp"]))

    def read_events(self) -> list[str]:
        """Read the reasons of the Events about it."""
        events = Kind(_CORE, "Event")
        found = self.stage.client.list(events, self.stage.namespace, fields=f"involvedObject.uid={self.uid}")
        return [str(item["reason"]) for item in found]

    def wait_for_events(self, *reasons: str) -> None:
        """Wait until these Events are there: the operator writes them after the status."""

        def probe() -> None:
            missing = set(reasons) - set(self.read_events())
            if missing:
                raise waiting.NotYetError(f"{sorted(missing)} are missing")

        waiting.wait_for("Events", probe, 20)

    def patch(self, patch: Manifest) -> None:
        """Edit the FineTuneJob."""
        self.stage.client.patch(FINE_TUNE_JOB, self.name, patch, self.stage.namespace)

    def delete(self, propagation: str = "Background") -> None:
        """Delete the FineTuneJob."""
        self.stage.client.delete(FINE_TUNE_JOB, self.name, self.stage.namespace, propagation=propagation)

    def delete_child(self, name: str, propagation: str = "Background") -> None:
        """Delete a child Job, as a person would."""
        self.stage.client.delete(JOB, name, self.stage.namespace, propagation=propagation)

    def wait(self, what: str, check: Callable[[Manifest], bool], seconds: float = DEADLINE_SECONDS) -> Manifest:
        """Wait until the status satisfies a condition; return it."""

        def probe() -> Manifest:
            current = self.read_status()
            if not check(current):
                conditions = {
                    item["type"]: (item["status"], item["reason"], item["message"])
                    for item in current.get("conditions", [])
                }
                raise waiting.NotYetError(f"{current.get('phase')} {conditions.get('Ready')} {current.get('attempts')}")
            return current

        return waiting.wait_for(f"{self.name}: {what}", probe, seconds)

    def wait_phase(self, phase: str, seconds: float = DEADLINE_SECONDS) -> Manifest:
        """Wait for a phase; return the status."""
        return self.wait(f"phase {phase}", lambda current: current.get("phase") == phase, seconds)

    def wait_pod(
        self, stage: str, attempt: int = 1, *, seconds: float = DEADLINE_SECONDS, other_than: Sequence[str] = ()
    ) -> "PlayedPod":
        """Wait for the pod of an attempt that is not one of the given ones."""

        def probe() -> "PlayedPod":
            for pod in self.read_pods():
                labels = pod["metadata"]["labels"]
                is_wanted = (labels[group.LABEL_STAGE], labels[group.LABEL_ATTEMPT]) == (stage, str(attempt))
                # What the scheduler says of a pod for which there is no node would overwrite what the test plays.
                is_judged = any(item["type"] == "PodScheduled" for item in pod["status"].get("conditions") or ())
                if is_wanted and is_judged and pod["metadata"]["name"] not in other_than:
                    return PlayedPod(self, str(pod["metadata"]["name"]), stage, attempt)
            raise waiting.NotYetError(
                f"{[pod['metadata']['name'] for pod in self.read_pods()]}; {self.read_status().get('phase')}"
            )

        return waiting.wait_for(f"{self.name}: pod of {stage} {attempt}", probe, seconds)

    def play_prepare(self, attempt: int = 1) -> None:
        """Let a prepare attempt succeed."""
        self.wait_pod("prepare", attempt).succeed(
            {
                "preparedSHA256": "a" * 64,
                "runDigest": "sha256:" + "d" * 64,
                "data": {"trainRows": 2000, "validationRows": 250, "testRows": 250, "trainTokens": 61234},
                "memory": {"predictedPeak": "1.9Gi"},
                "resolved": {"totalSteps": "250", "learningRate": "1e-4"},
                "warnings": ["3 rows were cut"],
            }
        )

    def play_train(self, attempt: int = 1, **fields: Any) -> None:
        """Let a train attempt succeed."""
        self.wait_pod("train", attempt).succeed(
            {
                "manifestSHA256": "b" * 64,
                "artifactsURI": f"{self.read()['spec']['output']['uri']}/runs/{self.uid}/attempts/{attempt}/model/",
                "step": 250,
                "metrics": {
                    "base": [{"name": "accuracy", "value": "0.497", "split": "test"}],
                    "tuned": [{"name": "accuracy", "value": "0.846", "split": "test"}],
                },
                "memory": {"measuredPeak": "1.7Gi"},
                **fields,
            }
        )


@dataclass
class PlayedPod:
    """A pod whose status the test writes, as a kubelet would."""

    run: Run
    name: str
    stage: str
    attempt: int
    started: datetime | None = None

    def start(self, ago_seconds: float = 0, address: str = "") -> "PlayedPod":
        """Let the container run, since some seconds ago, at an IP address if one is given."""
        self.started = datetime.now(UTC) - timedelta(seconds=ago_seconds)
        fields = {"podIP": address, "podIPs": [{"ip": address}]} if address else None
        self._patch("Running", {"running": {"startedAt": _time(self.started)}}, pod_fields=fields)
        return self

    def succeed(self, fields: Manifest, reason: str = "Completed") -> None:
        """End with 0 and a termination message."""
        message = {"version": 1, "stage": self.stage, "attempt": self.attempt, "exitCode": 0, "reason": reason}
        self.end(0, json.dumps(message | fields))

    def fail(self, code: int, reason: str, message: str, remedy: str = "") -> None:
        """End with an exit code and a termination message."""
        fields = {"version": 1, "stage": self.stage, "attempt": self.attempt, "exitCode": code}
        self.end(code, json.dumps(fields | {"reason": reason, "message": message, "remedy": remedy}))

    def end(
        self,
        code: int,
        text: str = "",
        reason: str = "",
        conditions: Sequence[Manifest] = (),
        pod_fields: Manifest | None = None,
    ) -> None:
        """End the container."""
        if self.started is None:
            self.start(2)
        assert self.started is not None
        state = {
            "exitCode": code,
            "reason": reason or ("Completed" if code == 0 else "Error"),
            "message": text,
            "startedAt": _time(self.started),
            "finishedAt": _time(datetime.now(UTC)),
        }
        self._patch("Succeeded" if code == 0 else "Failed", {"terminated": state}, conditions, pod_fields)

    def hold(self, reason: str, message: str) -> None:
        """Let the container wait for something."""
        self._patch("Pending", {"waiting": {"reason": reason, "message": message}})

    def _patch(
        self, phase: str, state: Manifest, conditions: Sequence[Manifest] = (), pod_fields: Manifest | None = None
    ) -> None:
        scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": _time(datetime.now(UTC))}
        container = {
            "name": run.CONTAINER_NAME,
            "image": IMAGE,
            "imageID": "",
            "ready": phase == "Running",
            "restartCount": 0,
            "state": state,
        }
        status = {
            "phase": phase,
            "conditions": [scheduled, *conditions],
            "containerStatuses": [container],
            **(pod_fields or {}),
        }
        client = self.run.stage.client
        client.patch(POD, self.name, {"status": status}, self.run.stage.namespace, subresource="status")


def get_conditions(status: Manifest) -> dict[str, tuple[str, str]]:
    """Return status and reason of each condition."""
    return {item["type"]: (item["status"], item["reason"]) for item in status.get("conditions", [])}


def is_gone(call: Callable[[], object]) -> bool:
    """Tell whether a read answers 404."""
    try:
        call()
    except ApiException as error:
        return bool(error.status == 404)
    return False


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")

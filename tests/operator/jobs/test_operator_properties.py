"""Properties that hold in every order of things: random pods, deletions, suspensions, crashes and clocks.

Hypothesis drives the reconciler through random histories of one FineTuneJob; invariants are checked after every step.
"""

import json
from collections.abc import Callable

import cluster_objects as objects
from cluster_objects import Cluster
from hypothesis import event, given, settings, strategies
from manifests import Manifest

from finetune_api import exits, group
from finetune_api.kinds.finetunejob.status import ConditionType
from finetune_operator.runtime.kind import Answer
from finetune_operator.runtime.plan import CreateJob

CODES = (0, 0, 1, 64, 65, 66, 69, 75, 77, 78, 79, 80, 85, 134, 137, 139, 143, 255)
WAITS = ("ErrImagePull", "CreateContainerConfigError", "ContainerCreating", "Unschedulable")
SECONDS = (-30, 1, 5, 20, 20, 90, 400, 2000)
ALL_CONDITIONS = {item.value for item in ConditionType}


class History:
    """One FineTuneJob and what happens to it; each step takes a number that chooses its details."""

    def __init__(self, limit: int, is_suspended: bool, gpus: int) -> None:
        policy = {"backoffLimit": limit, "suspend": is_suspended, "activeDeadlineSeconds": 3600}
        self.cluster = Cluster(spec__runPolicy=policy, spec__resources={"gpus": gpus})
        self.now = 0.0
        self.final: Manifest | None = None

    def reconcile(self, number: int) -> None:
        """One pass; one in eight dies between the status and the actions."""
        live = self.live_jobs()
        plan = self.cluster.step(self.now, acts=number % 8 != 0)
        creates = [action.manifest for action in plan.actions if isinstance(action, CreateJob)]
        assert len(creates) <= 1, "never two creates at once"
        assert not (creates and live), "never a create beside a live Job"
        assert not (creates and self.final), "a finished run never gets a child again"
        for manifest in creates:
            last = self.cluster.status["attempts"][-1]
            assert manifest["metadata"]["name"] == last["job"], "a Job is only made for an attempt in the status"
        assert plan.requeue_after is None or plan.requeue_after >= 0
        if not plan.actions:
            again = self.cluster.plan(self.now)
            assert (again.actions, again.status_patch) == ((), {}), "the echo of a write brings nothing new"
            assert again.status == self.cluster.status
        if self.final is None and self.cluster.status["phase"] in ("Succeeded", "Failed"):
            self.final = self.cluster.status

    def pass_time(self, number: int) -> None:
        """Clocks may step back too."""
        self.now += SECONDS[number % len(SECONDS)]

    def make_pod(self, number: int) -> None:
        """The Job controller makes a pod; often it runs at once."""
        if self.live_jobs() and not self.live_pods() and not self.live_jobs()[-1]["spec"].get("suspend"):
            pod = self.cluster.add_pod(self.now)
            if number % 3:
                objects.start_pod(pod, self.now)

    def hold_pod(self, number: int) -> None:
        """The scheduler or the kubelet waits for something."""
        if self.live_pods():
            reason = WAITS[number % len(WAITS)]
            if reason == "Unschedulable":
                objects.set_unschedulable(self.live_pods()[-1], self.now)
            else:
                objects.hold_pod(self.live_pods()[-1], reason, "something")

    def end_well(self, _: int = 0) -> None:
        """The pod does what it should."""
        if self.live_pods():
            stage, attempt = self.name_live_attempt()
            build = {"prepare": objects.build_prepared_message, "train": objects.build_trained_message}[stage]
            objects.end_pod(self.live_pods()[-1], 0, self.now, build(attempt))
            objects.end_child(self.live_jobs()[-1], "Complete", self.now)

    def end_somehow(self, number: int) -> None:
        """The pod ends with any code, with or without a message, drained or out of memory."""
        if not self.live_pods():
            return
        code = CODES[number % len(CODES)]
        told = {
            "message": "bad",
            "step": number,
            "checkpoints": [objects.make_checkpoint(number)],
            "resumedFromStep": 1,
        }
        text = objects.build_message(*self.name_live_attempt(), code, "DataError", **told) if number % 2 else "?"
        disruption = "drained" if number % 5 == 0 and code else ""
        reason = "OOMKilled" if code == exits.ExitCode.KILLED and number % 3 else ""
        child = self.live_jobs()[-1]
        objects.end_pod(self.live_pods()[-1], code, self.now, text, reason=reason, disruption=disruption)
        if not disruption and code not in exits.IGNORED_EXIT_CODES:
            objects.end_child(child, "Failed" if code else "Complete", self.now, "PodFailurePolicy" if code else "")

    def tell(self, number: int) -> None:
        """The pod answers, the truth or anything else."""
        if self.live_pods():
            step = number % 250
            saved = [objects.make_checkpoint(item, seconds=self.now) for item in range(0, step, 50)][-3:]
            report: Manifest = {"stage": self.name_live_attempt()[0], "step": step, "percent": step * 100 // 250}
            report |= {"phase": ("load", "train", "evaluate")[number % 3], "resumedFromStep": step // 2}
            report |= {"checkpoints": saved} if number % 2 else {"checkpointFailure": "no answer"}
            report |= {"step": "many"} if number % 7 == 0 else {}
            pod = self.live_pods()[-1]["metadata"]["uid"] if number % 5 else "another"
            self.cluster.answer = Answer(pod, json.dumps(report).encode(), "now" if number % 11 == 0 else "")

    def delete_by_hand(self, number: int) -> None:
        """Somebody deletes a Job."""
        if self.cluster.children:
            self.cluster.remove_child(self.cluster.children[number % len(self.cluster.children)])

    def lose_pod(self, number: int) -> None:
        """A pod is removed before its message was read."""
        if self.cluster.pods:
            self.cluster.pods.pop(number % len(self.cluster.pods))

    def suspend(self, number: int) -> None:
        """The user pauses or resumes."""
        self.cluster.job["spec"]["runPolicy"]["suspend"] = number % 3 == 0
        self.cluster.job["metadata"]["generation"] += 1

    def queue(self, number: int) -> None:
        """Kueue takes the Job's place back, or gives it one."""
        if self.live_jobs():
            child = self.live_jobs()[-1]
            child["spec"]["suspend"] = number % 2 == 0
            if child["spec"]["suspend"]:
                gone = [pod for pod in self.live_pods() if pod not in self.cluster.pods[:-1]]
                self.cluster.pods = [pod for pod in self.cluster.pods if pod not in gone]

    def check(self) -> None:
        """Check everything that must hold at any time."""
        stored = self.cluster.status
        assert len(self.live_jobs()) <= 1, "at most one live Job"
        if "conditions" not in stored:
            return
        conditions = {item["type"]: item["status"] for item in stored["conditions"]}
        assert set(conditions) == ALL_CONDITIONS
        assert (conditions["Reconciling"], conditions["Stalled"]) != ("True", "True")
        assert (conditions["Succeeded"], conditions["Failed"]) != ("True", "True")
        assert (conditions["Finished"] == "True") == (stored["phase"] in ("Succeeded", "Failed"))
        assert (conditions["Succeeded"] == "True") == ("artifacts" in stored)
        assert (conditions["Failed"] == "True") == ("failure" in stored)
        assert (stored["progress"]["percent"] == 100) == (conditions["Succeeded"] == "True")
        assert min(stored.get(key, 0) for key in ("lostSteps", "lostSeconds", "preemptionCount")) >= 0
        assert all(item["activeSeconds"] >= 0 for item in stored.get("attempts", [])), "no time is negative"
        assert all("endTime" in item for item in stored.get("attempts", [])[:-1]), "one open attempt at most"
        if self.final is not None:
            assert objects.forget_generation(stored) == objects.forget_generation(self.final), "the end is final"

    def check_settled(self) -> None:
        """A second pass at the same moment writes nothing: no hot loop."""
        plan = self.cluster.plan(self.now)
        before = self.cluster.job
        self.cluster.job = before | {"status": plan.status}
        again = self.cluster.plan(self.now)
        self.cluster.job = before
        assert plan.actions or again.status == plan.status

    def check_convergence(self) -> None:
        """Left alone on a cluster that works, every run comes to an end."""
        self.cluster.job["spec"]["runPolicy"]["suspend"] = False
        for _ in range(40):
            self.reconcile(1)
            self.check()
            if self.final is not None:
                return
            for child in self.live_jobs():
                child["spec"]["suspend"] = False
            if not self.live_pods():
                self.make_pod(1)
            self.now += 10
            self.end_well()
            self.now += 400
        raise AssertionError(f"no end: {self.cluster.status}")

    def live_jobs(self) -> list[Manifest]:
        return [child for child in self.cluster.children if not child["status"]["conditions"]]

    def live_pods(self) -> list[Manifest]:
        uids = {child["metadata"]["uid"] for child in self.live_jobs()}
        return [
            pod
            for pod in self.cluster.pods
            if pod["metadata"]["ownerReferences"][0]["uid"] in uids
            and pod["status"]["phase"] not in ("Failed", "Succeeded")
        ]

    def name_live_attempt(self) -> tuple[str, int]:
        labels = self.live_jobs()[-1]["metadata"]["labels"]
        return labels[group.LABEL_STAGE], int(labels[group.LABEL_ATTEMPT])


STEPS: tuple[Callable[[History, int], None], ...] = (
    *[History.reconcile] * 8,
    *[History.pass_time] * 4,
    *[History.make_pod] * 5,
    *[History.end_well] * 4,
    *[History.end_somehow] * 2,
    *[History.tell] * 3,
    History.hold_pod,
    History.delete_by_hand,
    History.lose_pod,
    *[History.suspend] * 2,
    History.queue,
)


@given(
    limit=strategies.integers(0, 3),
    is_suspended=strategies.sampled_from([False, False, False, True]),
    gpus=strategies.integers(0, 2),
    steps=strategies.lists(
        strategies.tuples(strategies.sampled_from(STEPS), strategies.integers(0, 1000)), min_size=40, max_size=80
    ),
)
@settings(max_examples=120, deadline=None, derandomize=True)
def test_invariants_hold_in_any_order_of_things(
    limit: int, is_suspended: bool, gpus: int, steps: list[tuple[Callable[[History, int], None], int]]
) -> None:
    history = History(limit, is_suspended, gpus)
    for step, number in steps:
        step(history, number)
        history.check()
    history.check_settled()
    history.check_convergence()
    stored = history.cluster.status
    event(f"{stored.get('phase')} {stored.get('failure', {}).get('reason', '')}")

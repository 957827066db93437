"""The resync deletes what is ours and nothing else, however much it looks like ours."""

import asyncio
import copy
from typing import Any

import pytest
from cluster_objects import SETTINGS, UID, to_prepare
from manifests import Manifest
from scripted_api import Answer, OperatorParts, ScriptedApi


def _make_orphan(**metadata: Any) -> Manifest:
    orphan = copy.deepcopy(to_prepare().children[0])
    labels = orphan["metadata"]["labels"] | metadata.pop("labels", {})
    orphan["metadata"] |= {"labels": labels, **metadata}
    return orphan


def _own(**fields: Any) -> list[Manifest]:
    owner = {"apiVersion": "finetune.dev/v1alpha1", "kind": "FineTuneJob", "name": "movies", "uid": UID}
    return [owner | {"controller": True} | fields]


CASES: list[tuple[str, Manifest, bool]] = [
    ("ours", _make_orphan(), True),
    ("ours, whose owner was deleted with --cascade=orphan", _make_orphan(ownerReferences=[]), True),
    ("controlled by another Job", _make_orphan(ownerReferences=_own(kind="Job", uid="x")), False),
    ("controlled by a CronJob of the same uid", _make_orphan(ownerReferences=_own(kind="CronJob")), False),
    ("controlled by another FineTuneJob", _make_orphan(ownerReferences=_own(uid="another")), False),
    ("without the manager's label", _make_orphan(labels={"app.kubernetes.io/managed-by": "Helm"}), False),
    ("under a name of its own", _make_orphan(name="important"), False),
    ("under the name of another attempt", _make_orphan(labels={"finetune.dev/attempt": "2"}), False),
    ("with an attempt that is no number", _make_orphan(labels={"finetune.dev/attempt": "x"}), False),
    ("with a stage that is none of ours", _make_orphan(labels={"finetune.dev/stage": "../x"}), False),
    ("with another uid on its label", _make_orphan(labels={"finetune.dev/uid": "another"}, ownerReferences=[]), False),
]


@pytest.mark.parametrize(("sentence", "orphan", "is_ours"), CASES, ids=[case[0] for case in CASES])
def test_a_job_without_its_run_is_deleted_only_if_it_is_ours(sentence: str, orphan: Manifest, is_ours: bool) -> None:
    def answer(method: str, path: str, body: Manifest) -> Answer:
        if path.endswith("/movies"):
            return 404, {"message": "gone"}
        return 200, {"items": [orphan] if path.endswith("jobs") and "batch" in path else [], "metadata": {}}

    api = ScriptedApi(answer)
    asyncio.run(OperatorParts(api, SETTINGS).resync.run_once())
    deletes = [(path.rpartition("/")[2], body) for method, path, body in api.requests if method == "DELETE"]
    wanted = {"preconditions": {"uid": orphan["metadata"]["uid"]}, "propagationPolicy": "Background"}
    assert deletes == ([(orphan["metadata"]["name"], wanted)] if is_ours else [])


def test_every_deletion_names_the_uid_it_is_meant_for() -> None:
    state = to_prepare(spec__runPolicy={"suspend": False})
    state.step(1)
    state.job["spec"]["runPolicy"]["suspend"] = True
    child = state.children[0]
    lists = {"jobs": [child], "pods": []}

    def answer(method: str, path: str, body: Manifest) -> Answer:
        name = path.rpartition("/")[2]
        return (200, {"items": lists[name], "metadata": {}}) if name in lists else (200, state.job)

    api = ScriptedApi(answer)
    asyncio.run(OperatorParts(api, SETTINGS).controller.reconcile(("demo", "movies")))
    [body] = [body for method, _, body in api.requests if method == "DELETE"]
    assert body == {"preconditions": {"uid": child["metadata"]["uid"]}, "propagationPolicy": "Foreground"}

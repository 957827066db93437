"""What the operator does when the API server refuses: status, Events and counters stay true, other work goes on."""

import asyncio
import copy
from typing import Any

import cluster_objects as objects
import pytest
import scripted_api
from cluster_objects import SETTINGS, to_prepare
from lightkube.core.exceptions import ApiError
from manifests import Manifest
from scripted_api import Answer, ScriptedApi

from finetune_operator.health import Health
from finetune_operator.worker import Worker

KEY = ("demo", "movies")


def _make_worker(api: ScriptedApi, settings: Any = SETTINGS) -> Worker:
    return Worker(api.connect(), settings, api.metrics, Health(api.metrics, 30))


def _serve(job: Manifest, lists: dict[str, list[Manifest]], refusals: dict[tuple[str, str], Answer]) -> Any:
    """Serve one FineTuneJob, which keeps the status it gets, and lists; refuse what is named by method and ending."""

    def answer(method: str, path: str, body: Manifest) -> Answer | None:
        for (verb, ending), refusal in refusals.items():
            if method == verb and path.endswith(ending):
                return refusal
        if path.endswith("/status"):
            assert body["metadata"]["resourceVersion"] == job["metadata"]["resourceVersion"], "written on what was read"
            job["status"] = _merge(job.get("status", {}), body["status"])
            job["metadata"]["resourceVersion"] = str(int(job["metadata"]["resourceVersion"]) + 1)
            return 200, job
        if method == "GET":
            plural = path.rpartition("/")[2]
            return 200, (job if plural == job["metadata"]["name"] else {"items": lists.get(plural, []), "metadata": {}})
        return None

    return answer


def _merge(old: Manifest, patch: Manifest) -> Manifest:
    merged = {key: value for key, value in old.items() if patch.get(key, value) is not None}
    for key, value in patch.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = _merge(merged[key], value)
        elif value is not None:
            merged[key] = copy.deepcopy(value)
    return merged


def test_a_transition_is_told_and_counted_even_if_an_action_fails_after_it() -> None:
    state = to_prepare()
    state.step(1)
    state.end(64, 20, objects.build_message("prepare", 1, 64, "ConfigError"))
    lists = {"jobs": state.children, "pods": state.pods}
    refusals = {("PATCH", "/" + state.children[0]["metadata"]["name"]): scripted_api.refuse(403, "no")}
    api = ScriptedApi(_serve(state.job, lists, refusals))
    with pytest.raises(ApiError, match="no"):
        asyncio.run(_make_worker(api)._reconcile(KEY))
    job_name = state.children[0]["metadata"]["name"]
    assert api.list_writes() == ["PATCH status", "POST events", f"PATCH {job_name}"]
    sample = 'finetune_jobs_finished_total{namespace="demo",reason="ConfigError",result="failed"} 1.0'
    assert sample in api.metrics.build_exposition().decode().splitlines()

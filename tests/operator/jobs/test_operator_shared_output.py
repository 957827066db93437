"""Two FineTuneJobs with one output address: the second says whose published run it will replace."""

import asyncio
from typing import Any

import pytest
from cluster_objects import SETTINGS, make_job
from manifests import Manifest
from scripted_api import Answer, OperatorParts, ScriptedApi


def _start(name: str, uri: str, others: dict[str, str]) -> tuple[Manifest, list[Manifest]]:
    """Return status and Events of a new run beside those that are known."""
    job = make_job(name, spec__output={"uri": uri})

    def answer(method: str, path: str, body: Manifest) -> Answer | None:
        if path.endswith("/status"):
            job["status"] |= body["status"]
            return 200, job
        if method == "GET" and path.endswith("finetunejobs"):
            known = [make_job(other, spec__output={"uri": place}) for other, place in others.items()]
            return 200, {"items": known, "metadata": {}}
        return (200, {"items": [], "metadata": {}}) if method == "GET" else None

    api = ScriptedApi(answer)
    parts = OperatorParts(api, SETTINGS)
    asyncio.run(parts.resync.run_once())
    parts.controller.enqueue("finetunejobs", "ADDED", job)
    asyncio.run(parts.controller.reconcile(("demo", name)))
    return job["status"], [body for method, path, body in api.requests if path.endswith("/events")]


@pytest.mark.parametrize("uri", ["s3://models/shared", "s3://models/shared/"])
def test_a_run_names_those_that_publish_where_it_does(uri: str) -> None:
    status, events = _start("second", uri, {"first": "s3://models/shared", "other": "s3://models/other"})
    [warning] = status["warnings"]
    assert warning == (
        f"spec.output.uri ({uri}) is also that of demo/first: its current.json names the run that finishes last, "
        "and replaces theirs"
    )
    shared: list[Any] = [event for event in events if event["reason"] == "OutputShared"]
    assert [(event["type"], event["message"]) for event in shared] == [("Warning", warning)]


def test_a_run_that_publishes_alone_says_nothing() -> None:
    status, events = _start("second", "s3://models/mine", {"first": "s3://models/shared"})
    assert "warnings" not in status
    assert [event["reason"] for event in events] == ["JobCreated"]

"""What is read of objects of the cluster."""

import cluster_objects as objects
import pytest

from finetune_operator.jobs import observe
from finetune_operator.runtime.kind import Children


def test_a_container_that_never_ran_has_no_times() -> None:
    pod = {
        "metadata": {"name": "p", "creationTimestamp": "2026-03-01T12:00:00Z"},
        "status": {
            "phase": "Failed",
            "containerStatuses": [
                {
                    "name": "trainer",
                    "state": {"terminated": {"exitCode": 137, "startedAt": None, "finishedAt": "1970-01-01T00:00:00Z"}},
                }
            ],
        },
    }
    [found] = observe.observe_children("u", Children(pods=[pod])).pods
    assert (found.started_at, found.finished_at, found.exit_code) == (None, None, 137)


def test_a_sidecars_state_is_not_the_trainers() -> None:
    state = {"terminated": {"exitCode": 65}}
    pod = {
        "metadata": {"name": "p", "creationTimestamp": "2026-03-01T12:00:00Z"},
        "status": {"phase": "Running", "containerStatuses": [{"name": "istio-proxy", "state": state}]},
    }
    [found] = observe.observe_children("u", Children(pods=[pod])).pods
    assert found.exit_code is None


def test_the_newest_refusal_of_a_pod_counts() -> None:
    job = {"metadata": {"name": "j", "uid": "1"}}
    events = [
        {"reason": "FailedCreate", "message": text, "lastTimestamp": moment, "involvedObject": {"uid": uid}}
        for text, moment, uid in [
            ("old", "2026-03-01T12:00:00Z", "1"),
            ("new", "2026-03-01T12:05:00Z", "1"),
            ("other", "2026-03-01T12:09:00Z", "2"),
        ]
    ]
    assert observe.observe_children("u", Children(jobs=[job], events=events)).jobs[0].create_error == "new"


def test_a_status_that_cannot_be_ours_is_an_error_not_a_decision() -> None:
    with pytest.raises(ValueError, match="phase"):
        observe.observe_job(objects.make_job(stored_status={"phase": "Dancing"}))

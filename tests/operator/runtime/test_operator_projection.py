"""Of long lists only what somebody reads is kept, and it is enough."""

import json
from typing import Any

import pytest
from cluster_objects import NOW, SETTINGS, make_job
from manifests import Manifest

from finetune_operator.jobs.kind import FineTuneJobs
from finetune_operator.runtime.metrics import Metrics
from finetune_operator.runtime.projection import Projection


@pytest.mark.parametrize(
    ("item", "want"),
    [
        ({"metadata": {"name": "a", "managedFields": []}, "kind": "X"}, {"metadata": {"name": "a"}}),
        ({"spec": {"method": {"kind": "LoRA", "lora": {}}, "task": "x"}}, {"spec": {"method": {"kind": "LoRA"}}}),
        ({"status": {"phase": ["?"]}}, {"status": {"phase": ["?"]}}),
        ({"spec": None, "status": {}}, {"spec": None, "status": {}}),
        ({}, {}),
    ],
)
def test_only_the_chosen_fields_of_an_object_are_kept(item: Manifest, want: Manifest) -> None:
    chosen = Projection(["metadata.name", "spec.method.kind", "status.phase"])
    page = {"apiVersion": "v1", "metadata": {"continue": "2", "resourceVersion": "7"}, "items": [item]}
    assert chosen.parse_page(json.dumps(page).encode()) == {"metadata": page["metadata"], "items": [want]}


def test_an_empty_list_of_metadata_has_no_items() -> None:
    assert Projection(["metadata.name"]).parse_page(b'{"metadata": {}, "items": null}') == {
        "metadata": {},
        "items": None,
    }


@pytest.mark.parametrize("answer", [b"", b"[]", b'{"items": ["hunter2"]}', b'{"items": [{"metadata": "hunter2"}]}'])
def test_what_is_no_list_of_objects_is_refused_and_not_shown(answer: bytes) -> None:
    with pytest.raises(ValueError, match="the list must be one of objects: ") as caught:
        Projection(["metadata.name"]).parse_page(answer)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "stored",
    [
        None,
        {"phase": "Succeeded", "observedGeneration": 1},
        {"phase": "Failed", "observedGeneration": 0},
        {"phase": "Training", "observedGeneration": 1, "progress": {"stage": "train", "step": 2, "percent": 40}},
        {"phase": "Queued", "observedGeneration": 1, "pendingSince": "2026-03-01T11:59:00Z", "reason": "Queued"},
    ],
)
def test_a_resync_knows_of_a_listed_object_what_the_whole_one_would_tell(stored: dict[str, Any] | None) -> None:
    job = make_job(stored_status=stored, placement={"queueName": "team-a"})
    chosen = Projection(["metadata", *FineTuneJobs.listed_fields])
    [listed] = chosen.parse_page(json.dumps({"items": [job]}).encode())["items"]
    assert _tell(listed) == _tell(job)


def _tell(manifest: Manifest) -> tuple[bool, bool, str, bytes]:
    metrics = Metrics()
    kind = FineTuneJobs(SETTINGS, metrics, lambda: NOW)
    kind.record_seen(manifest)
    found = kind.is_finished(manifest), kind.is_watched(manifest), kind.build_index_value(manifest)
    return *found, metrics.build_exposition()

"""A status as the API server stores it, and the patch that turns one into another. Pure."""

from typing import Any

from finetune_api.kinds.finetunejob.status import FineTuneJobStatus

Manifest = dict[str, Any]


def build_patch(current: FineTuneJobStatus, wanted: FineTuneJobStatus) -> Manifest:
    """Build the merge patch of `status`; empty where nothing differs."""
    return build_merge_patch(build_status_manifest(current), build_status_manifest(wanted))


def build_status_manifest(current: FineTuneJobStatus) -> Manifest:
    """Write a status as the API server stores it: without what is absent or empty."""
    data = current.model_dump(mode="json", exclude_none=True)
    return {key: value for key, value in data.items() if value not in ([], {})}


def build_merge_patch(old: Manifest, new: Manifest) -> Manifest:
    """Build the JSON merge patch (RFC 7386) that turns one object into the other; lists are replaced whole."""
    patch: Manifest = {key: None for key in old if key not in new}
    for key, value in new.items():
        if key not in old:
            patch[key] = value
        elif isinstance(value, dict) and isinstance(old[key], dict):
            patch |= {key: inner} if (inner := build_merge_patch(old[key], value)) else {}
        elif value != old[key]:
            patch[key] = value
    return patch

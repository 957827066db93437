"""JSON merge patches (RFC 7386). Pure."""

from finetune_operator.runtime.plan import Manifest


def build_merge_patch(old: Manifest, new: Manifest) -> Manifest:
    """Build the patch that turns one object into the other, empty where nothing differs; lists are replaced whole."""
    patch: Manifest = {key: None for key in old if key not in new}
    for key, value in new.items():
        if key not in old:
            patch[key] = value
        elif isinstance(value, dict) and isinstance(old[key], dict):
            patch |= {key: inner} if (inner := build_merge_patch(old[key], value)) else {}
        elif value != old[key]:
            patch[key] = value
    return patch

"""Whose run `current.json` named before this one: two jobs with one output address replace each other there."""

from pydantic import ValidationError

from finetune_api import wording
from finetune_api.artifacts import CurrentRun, RunLayout
from finetune_api.errors import AccessDenied, DataError, ReferenceNotFound
from finetune_trainer.storage import Store

_MAX_BYTES = 2**16
"""Ours have less than 4 KiB; more is none of ours (a choice)."""


def describe_replaced(store: Store, layout: RunLayout) -> str:
    """Say which other run `current.json` names, that is about to name this one; nothing where it names none.

    What can't be read keeps nobody from publishing.
    """
    try:
        content = store.read_bytes(layout.current, _MAX_BYTES)
        current = CurrentRun.model_validate_json(content)
    except (ReferenceNotFound, AccessDenied):
        return ""
    except (DataError, ValidationError):
        return f"{layout.current} was no pointer to a run; it names this one now"
    if current.uid == layout.uid:
        return ""
    name, uid = wording.show_value(current.name), wording.show_value(current.uid)
    return f"{layout.current} named the run of {name} ({uid}) and names this one now; the other's files stay"

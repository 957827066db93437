"""kopf's decorators: watches in, keys out.

Only handlers that write nothing to our objects are used: no index, timer, daemon or change handler, so there is no
finalizer that could get stuck and no annotation that copies a spec. Nothing is decided here.
"""

from typing import Any

import kopf

from finetune_api import group
from finetune_operator.runtime.kopf_runner import Login, Memo

_login = Login()


@kopf.on.login(id="login")
async def log_in(**kwargs: Any) -> kopf.ConnectionInfo | None:  # noqa: ANN401 - kopf's arguments, passed on
    """Log in, the first time and whenever credentials are refused or old."""
    return await _login.log_in(**kwargs)


@kopf.on.cleanup(id="end")
async def note_end(memo: Memo, **_: object) -> None:
    """Note that kopf ends."""
    memo.ending.set()


@kopf.on.event(group.GROUP, group.VERSION, group.PLURAL, id="finetunejobs")
@kopf.on.event("batch", "v1", "jobs", id="jobs", labels={group.LABEL_JOB: kopf.PRESENT})
@kopf.on.event("", "v1", "pods", id="pods", labels={group.LABEL_JOB: kopf.PRESENT})
async def enqueue(memo: Memo, resource: kopf.Resource, type: str | None, body: kopf.Body, **_: object) -> None:  # noqa: A002 - kopf's name
    """Ask for the object of ours that an object is about; each controller knows its own."""
    for controller in memo.controllers:
        controller.enqueue(resource.plural, type, body)

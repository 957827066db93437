"""Attempts as every kind that runs Jobs reports them: one child Job each."""

from typing import Annotated

from pydantic import Field

from finetune_api.kinds.object_model import Model
from finetune_api.kinds.status_fields import Message, ReasonText, Time

MAX_ATTEMPT_MESSAGE_LENGTH = 256
"""Of each attempt in the list: ten of them must leave the status small."""
MAX_ATTEMPTS = 10


class JobRefusal(Model):
    reason: ReasonText
    """reason in one word; Pending where only time is missing."""
    message: Message
    """message: what the API server said."""


class Attempt(Model):
    number: Annotated[int, Field(ge=1)]
    """number of the attempt within its stage."""
    stage: Annotated[str, Field(max_length=16)]
    """stage: prepare or train."""
    job: Annotated[str, Field(max_length=63)]
    """job is the name of the child Job."""
    job_uid: Annotated[str, Field(max_length=64)] | None = None
    """jobUID once the Job was seen."""
    start_time: Time | None = None
    """startTime of the first pod."""
    end_time: Time | None = None
    """endTime of the attempt."""
    active_seconds: Annotated[int, Field(ge=0)] = 0
    """activeSeconds with a running pod."""
    resumed_from_step: Annotated[int, Field(ge=0)] | None = None
    """resumedFromStep is the step that the attempt's last pod went on from; 0: it began anew."""
    refusal: JobRefusal | None = None
    """refusal of the API server to create the Job, until it was created."""
    cause: ReasonText | None = None
    """cause of the end."""
    message: Annotated[str, Field(max_length=MAX_ATTEMPT_MESSAGE_LENGTH)] | None = None
    """message: how it ended, where that was no success."""
    counted: bool = False
    """counted against backoffLimit."""

"""The next attempt: it stands in the status before its Job is made, and a refused Job is told until it works.

What the API server refuses only somebody else can change: a quota, a policy, a webhook. The refusal is kept with the
attempt, so that the run stays stalled between two tries instead of flickering with each. Pure.
"""

import re

from finetune_api import errors, quantities, run
from finetune_api.kinds import status_fields
from finetune_api.kinds.attempts import Attempt, JobRefusal
from finetune_api.kinds.finetunejob.spec import FineTuneJobSpec
from finetune_api.kinds.finetunejob.status import FineTuneJobStatus, Milestone, Reason, ResolvedKey
from finetune_api.run import JobIdentity, PreparedReference, Stage
from finetune_operator.jobs import failures
from finetune_operator.jobs.attempts import clock, deadlines, refusals
from finetune_operator.jobs.builders import inherited
from finetune_operator.jobs.builders import job as job_builder
from finetune_operator.jobs.conditions import Result, State
from finetune_operator.jobs.context import Context
from finetune_operator.runtime import logs
from finetune_operator.runtime.plan import CreateJob, Manifest


def start_attempt(context: Context, spec: FineTuneJobSpec) -> Result:
    """Begin the next attempt, or finish beginning one whose Job was never made."""
    stage = Stage.PREPARE if context.status.prepared_sha256 is None else Stage.TRAIN
    is_new = context.attempt is None
    if is_new:
        context.status = clock.begin(context.status, stage, context.job.name, context.job.uid)
        moment = status_fields.build_time(context.now)
        context.update(pending_since=moment, start_time=context.status.start_time or moment)
    attempt = context.status.attempts[-1]
    # The run digest names the image: an upgrade of the operator between two attempts must not change it.
    image = context.status.trainer_image or spec.trainer.image or context.settings.trainer_image
    context.update(trainer_image=image)
    refused = _record_refusal(context, attempt)
    if refused is not None and refused.state is State.FAILED:
        return refused
    try:
        manifest = _build_job(context, spec, stage, image)
    except errors.ConfigError as error:
        return failures.build_failed(Reason.CONFIG_ERROR, error.message, error.remedy)
    context.actions.append(CreateJob(manifest))
    if is_new:
        context.record_event(Milestone.JOB_CREATED, f"attempt {attempt.number} of stage {stage}: Job {attempt.job}")
    return refused or Result(State.PENDING, f"Job {attempt.job} is being created")


def _build_job(context: Context, spec: FineTuneJobSpec, stage: Stage, image: str) -> Manifest:
    job = context.job
    number = context.status.attempts[-1].number
    return job_builder.build_job(
        JobIdentity(namespace=job.namespace, name=job.name, uid=job.uid, attempt=number),
        spec,
        stage,
        image=image,
        prepared=_build_prepared(context.status) if stage is Stage.TRAIN else None,
        deadline_seconds=deadlines.compute_job_deadline(context, spec, stage),
        grace_seconds=_compute_grace(context.status, stage),
        settings=context.settings,
        inherited=inherited.Inherited(
            labels=inherited.choose(job.labels, context.settings.pod_labels),
            annotations=inherited.choose(job.annotations, context.settings.pod_annotations),
        ),
    )


def _compute_grace(current: FineTuneJobStatus, stage: Stage) -> int:
    """Give a pod that trains the time its state takes to be saved; its size is the prepare stage's to say."""
    size = current.resolved.get(ResolvedKey.CHECKPOINT_SIZE, "")
    if stage is Stage.PREPARE or not re.fullmatch(quantities.BYTES_PATTERN, size):
        return run.TERMINATION_GRACE_SECONDS
    return run.compute_grace_seconds(int(quantities.parse_quantity(size)))


def _record_refusal(context: Context, attempt: Attempt) -> Result | None:
    """Keep why the Job was refused the last time, once per reason; None: it was not, as far as anybody knows."""
    latest = context.observed.find_refusal(attempt.job)
    if latest is not None and not refusals.is_passing(latest.code, latest.message):
        text = logs.scrub_text(latest.message)
        if refusals.is_invalid(latest.code):
            return failures.build_failed(Reason.CONFIG_ERROR, f"Job {attempt.job} is refused as invalid: {text}")
        reason = refusals.classify(latest.message)
        if attempt.refusal is None or attempt.refusal.reason != reason:
            message = status_fields.build_message(f"Job {attempt.job} can't be created: {text}")
            context.update_attempt(refusal=JobRefusal(reason=reason, message=message))
    refusal = context.status.attempts[-1].refusal
    if refusal is None:
        return None
    return Result(State.PENDING, refusal.message, refusal.reason, is_stalled=refusal.reason != Milestone.PENDING)


def _build_prepared(current: FineTuneJobStatus) -> PreparedReference:
    return PreparedReference(attempt=current.prepared_attempt or 1, sha256=current.prepared_sha256 or "")

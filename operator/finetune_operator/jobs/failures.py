"""What a failure tells the user: reason, message, remedy, and whether the same job may work another time. Pure."""

from finetune_api.kinds.finetunejob import status
from finetune_api.kinds.finetunejob.status import Failure, Reason
from finetune_operator.jobs.conditions import Result, State
from finetune_operator.runtime import logs

REMEDIES: dict[Reason, str] = {
    Reason.INVALID_SPEC: "Correct the fields and create a new FineTuneJob.",
    Reason.CONFIG_ERROR: "Correct the setting and create a new FineTuneJob.",
    Reason.DATA_ERROR: "Correct the data and create a new FineTuneJob.",
    Reason.MODEL_ERROR: "Choose a base model that fits the task and create a new FineTuneJob.",
    Reason.REFERENCE_NOT_FOUND: "Create what is missing or correct the name, then create a new FineTuneJob.",
    Reason.ACCESS_DENIED: "Check the credentials and what they may do, then create a new FineTuneJob.",
    Reason.STORAGE_UNAVAILABLE: "Check that the store answers, then create the FineTuneJob again.",
    Reason.OUT_OF_MEMORY: "Raise spec.resources.memory or lower spec.training.batchSize or maxLength.",
    Reason.CUDA_OUT_OF_MEMORY: "Use a larger GPU, a smaller model, quantization, or a lower spec.training.maxLength.",
    Reason.DIVERGED: "Lower spec.training.learningRate.",
    Reason.DEADLINE_EXCEEDED: "Raise spec.runPolicy.activeDeadlineSeconds or train less.",
    Reason.PENDING_DEADLINE_EXCEEDED: "Remove the cause or raise spec.runPolicy.pendingDeadlineSeconds.",
    Reason.BACKOFF_LIMIT_EXCEEDED: "Look at status.attempts and the logs of the pods.",
    Reason.ARTIFACT_MISSING: "Check that the trainer image is one this operator supports.",
    Reason.JOB_DELETED: "Find out what deletes the Jobs, then create the FineTuneJob again.",
    Reason.INTERNAL: "Look at the logs of the pod.",
}
"""What to do where the trainer didn't say."""

_RETRYABLE = {Reason.STORAGE_UNAVAILABLE, Reason.INTERNAL, Reason.JOB_DELETED, Reason.PENDING_DEADLINE_EXCEEDED}


def build_failure(reason: Reason, message: str, remedy: str = "", exit_code: int | None = None) -> Failure:
    """Describe a failure for the status; without a remedy the reason's own is given."""
    return Failure(
        reason=reason,
        message=status.build_message(logs.scrub_text(message)),
        remedy=status.build_message(logs.scrub_text(remedy) or REMEDIES.get(reason, "")),
        retryable=reason in _RETRYABLE,
        exit_code=exit_code,
    )


def build_failed(reason: Reason, message: str, remedy: str = "") -> Result:
    """End the run as failed."""
    return fail(build_failure(reason, message, remedy))


def fail(failure: Failure) -> Result:
    """End the run with a failure."""
    return Result(State.FAILED, failure.message, failure.reason.value, failure=failure)

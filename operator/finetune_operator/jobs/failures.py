"""What a failure tells the user: reason, message, remedy, and whether the same job may work another time. Pure."""

from finetune_api.kinds import status_fields
from finetune_api.kinds.finetunejob.status import Failure, Reason
from finetune_operator.jobs.conditions import Result, State
from finetune_operator.runtime import logs

_ANEW = "create a new FineTuneJob"
REMEDIES: dict[Reason, str] = {
    Reason.INVALID_SPEC: f"Correct the fields and {_ANEW}.",
    Reason.CONFIG_ERROR: f"Correct the setting and {_ANEW}.",
    Reason.DATA_ERROR: f"Correct the data and {_ANEW}.",
    Reason.MODEL_ERROR: f"Choose a base model that fits the task and {_ANEW}.",
    Reason.REFERENCE_NOT_FOUND: f"Create what is missing or correct the name, then {_ANEW}.",
    Reason.ACCESS_DENIED: f"Check the credentials and what they may do, then {_ANEW}.",
    Reason.STORAGE_UNAVAILABLE: f"Check that the store answers, then {_ANEW}.",
    Reason.OUT_OF_MEMORY: "Create a new FineTuneJob with more spec.resources.memory, or a lower "
    "spec.training.batchSize or maxLength.",
    Reason.CUDA_OUT_OF_MEMORY: "Create a new FineTuneJob for a larger GPU, or with a smaller model, quantization or a "
    "lower spec.training.maxLength.",
    Reason.DIVERGED: "Create a new FineTuneJob with a lower spec.training.learningRate.",
    Reason.DEADLINE_EXCEEDED: "Create a new FineTuneJob with a higher spec.runPolicy.activeDeadlineSeconds or less to "
    "train.",
    Reason.PENDING_DEADLINE_EXCEEDED: "Remove the cause, then create a new FineTuneJob; a higher "
    "spec.runPolicy.pendingDeadlineSeconds lets it wait longer.",
    Reason.BACKOFF_LIMIT_EXCEEDED: f"Look at status.attempts and the logs of the pods, then {_ANEW}.",
    Reason.PREEMPTION_LIMIT_EXCEEDED: "Find out what ends the pods, then create a new FineTuneJob with a higher "
    "spec.runPolicy.preemptionLimit or none.",
    Reason.POD_DISRUPTED: f"Find out what ends the pods, then {_ANEW}.",
    Reason.ARTIFACT_MISSING: f"Check that the trainer image is one this operator supports, then {_ANEW}.",
    Reason.IMAGE_PULL_FAILED: f"Check image, registry and pull secrets, then {_ANEW}.",
    Reason.UNSCHEDULABLE: "Add a node that fits, or create a new FineTuneJob that asks for less.",
    Reason.POD_SECURITY_VIOLATION: f"Use a namespace whose Pod Security level the pod satisfies and {_ANEW} there.",
    Reason.QUOTA_EXCEEDED: f"Raise the quota or free some of it, then {_ANEW}.",
    Reason.JOB_DELETED: f"Find out what deletes the Jobs, then {_ANEW}.",
    Reason.INTERNAL: f"Look at the logs of the pod, then {_ANEW}.",
}
"""What to do about a run that has failed, where the trainer didn't say. Its spec can't be changed any more."""

_RETRYABLE = {Reason.STORAGE_UNAVAILABLE, Reason.INTERNAL, Reason.JOB_DELETED, Reason.PENDING_DEADLINE_EXCEEDED}


def build_failure(reason: Reason, message: str, remedy: str = "", exit_code: int | None = None) -> Failure:
    """Describe a failure for the status; without a remedy the reason's own is given."""
    return Failure(
        reason=reason,
        message=status_fields.build_message(logs.scrub_text(message)),
        remedy=status_fields.build_message(logs.scrub_text(remedy) or REMEDIES[reason]),
        retryable=reason in _RETRYABLE,
        exit_code=exit_code,
    )


def build_failed(reason: Reason, message: str, remedy: str = "") -> Result:
    """End the run as failed."""
    return fail(build_failure(reason, message, remedy))


def fail(failure: Failure) -> Result:
    """End the run with a failure; nothing is tried again after it."""
    return Result(State.FAILED, failure.message, failure.reason.value, failure=failure)

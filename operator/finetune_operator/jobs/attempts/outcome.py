"""How an attempt ended, from its Job, its pods and the trainer's termination message.

Precedence: a proven success, the Job's deadline, out of memory, then the message's reason if the exit code allows it,
the exit code, the pod's conditions. Exit code 0 alone proves nothing: the message must carry the digest of what was
committed. Texts from pods are data of somebody else: scrubbed, cut, never trusted beyond the fields of the message.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from pydantic import ValidationError

from finetune_api import exits
from finetune_api.exits import ExitCode
from finetune_api.kinds.attempts import Attempt
from finetune_api.kinds.finetunejob.status import Failure, Milestone, Reason
from finetune_api.run import Stage, TerminationMessage
from finetune_operator.jobs import failures
from finetune_operator.jobs.observe import ChildJob, ChildPod

_CRASHES = {
    ExitCode.TEMPORARY: "a temporary fault",
    ExitCode.GPU_FAULT: "a fault of the GPU or of NCCL",
    ExitCode.ABORTED: "abort()",
    ExitCode.KILLED: "SIGKILL",
    ExitCode.SEGMENTATION_FAULT: "a segmentation fault",
}


COMPLETE_WITHIN = timedelta(minutes=5)
"""A Job is complete within seconds of its pod's success (a choice); without a working Job controller it never is."""


class End(StrEnum):
    COMPLETED = "completed"
    FINAL = "final"
    """The run has failed: a retry would give the same."""
    COUNTED = "counted"
    """Counts against backoffLimit."""
    UNCOUNTED = "uncounted"
    """Nobody's fault: the next attempt goes on."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of one attempt; `message` and the pod that wrote it where it completed, `failure` where it didn't."""

    end: End
    cause: str
    failure: Failure | None = None
    message: TerminationMessage | None = None
    pod: ChildPod | None = None


def parse_message(text: str, stage: Stage, attempt: int) -> TerminationMessage | None:
    """Read the termination message of an attempt; None if the text isn't one, or one of another attempt."""
    try:
        message = TerminationMessage.model_validate_json(text, extra="ignore")
    except ValidationError:
        return None
    return message if (message.stage, message.attempt) == (stage, attempt) else None


def decide_ended(
    attempt: Attempt,
    job: ChildJob,
    pods: Sequence[ChildPod],
    *,
    is_out_of_time: bool,
    is_lost_again: bool,
    memory_remedy: str,
) -> Outcome:
    """Classify an attempt whose Job is Complete or Failed.

    Args:
        is_out_of_time: the limits of the run are used up by the operator's own measure, as far as it saw.
        is_lost_again: the message of the attempt before was lost too.
        memory_remedy: what to do where the pod needed more memory than it had.
    """
    # What was committed counts, whatever became of the Job a moment later.
    success = find_success(attempt, pods)
    if success is not None:
        return success
    if job.is_failed and job.failed_reason == "DeadlineExceeded":
        return _decide_overdue(job, is_out_of_time)
    pod = next((item for item in reversed(pods) if item.is_terminal), None)
    if pod is None:
        return _decide_without_pod(job, is_lost_again)
    overflow = find_overflow(pods)
    if overflow is not None:
        return overflow
    if pod.exit_code == ExitCode.OK:
        return _decide_unproven(attempt, pod)
    return _decide_failed_pod(attempt, pod, memory_remedy)


def decide_deleted(attempt: Attempt, pods: Sequence[ChildPod]) -> Outcome:
    """Classify an attempt whose Job vanished without the operator's doing; its pods may still be there."""
    success = find_success(attempt, pods)
    if success is not None:
        return success
    text = f"Job {attempt.job} was deleted while it was needed"
    return _fail(End.COUNTED, failures.build_failure(Reason.JOB_DELETED, text))


def decide_unusable(attempt: Attempt, problem: str) -> Outcome:
    """Classify an attempt whose message proves success but says what can't be believed or kept."""
    text = f"Job {attempt.job} succeeded but its termination message {problem}"
    return _fail(End.FINAL, failures.build_failure(Reason.ARTIFACT_MISSING, text, exit_code=0))


def decide_incomplete(job: ChildJob, pods: Sequence[ChildPod], attempt: Attempt, now: datetime) -> Outcome | None:
    """Classify an attempt whose pod succeeded minutes ago and whose Job isn't complete; None: it may still be.

    The next attempt finds what was committed and ends at once.
    """
    success = find_success(attempt, pods)
    if success is None or now < find_completion_deadline(success, now):
        return None
    minutes = int(COMPLETE_WITHIN.total_seconds() / 60)
    text = f"Job {job.name} is not complete {minutes} minutes after its pod succeeded; look at the Job controller"
    return _fail(End.COUNTED, failures.build_failure(Reason.INTERNAL, text))


def find_completion_deadline(success: Outcome, now: datetime) -> datetime:
    """Return until when the Job of a pod that succeeded must be complete."""
    ended_at = success.pod.finished_at if success.pod is not None else None
    return (ended_at or now) + COMPLETE_WITHIN


def find_success(attempt: Attempt, pods: Sequence[ChildPod]) -> Outcome | None:
    """Find a pod that proves with its message that the attempt's result was committed."""
    for pod in reversed(pods):
        if pod.is_terminal and pod.exit_code == ExitCode.OK and not pod.is_oom_killed:
            message = parse_message(pod.termination_text, Stage(attempt.stage), attempt.number)
            if message is not None and _find_proof(message) is not None:
                return Outcome(End.COMPLETED, message.reason, message=message, pod=pod)
    return None


def _find_proof(message: TerminationMessage) -> str | None:
    return message.prepared_sha256 if message.stage is Stage.PREPARE else message.manifest_sha256


def find_overflow(pods: Sequence[ChildPod]) -> Outcome | None:
    """Find a pod evicted for its own disk use: to Kubernetes a disruption, so it would be replaced for ever."""
    for pod in pods:
        text = pod.message.lower()
        if pod.reason == "Evicted" and "exceed" in text and ("emptydir" in text or "ephemeral" in text):
            remedy = "Raise spec.resources.scratch: model, data and checkpoints must fit."
            return _fail(
                End.FINAL, failures.build_failure(Reason.CONFIG_ERROR, f"pod {pod.name}: {pod.message.strip()}", remedy)
            )
    return None


def _fail(end: End, failure: Failure) -> Outcome:
    return Outcome(end, failure.reason.value, failure)


def _decide_overdue(job: ChildJob, is_out_of_time: bool) -> Outcome:
    text = f"Job {job.name} reached its own limit of {job.active_deadline_seconds} s"
    if is_out_of_time:
        return _fail(End.FINAL, failures.build_failure(Reason.DEADLINE_EXCEEDED, text))
    # The Job's clock runs on through every wait: for a node, after a drain.
    text += ", part of it waiting; the run has time left"
    return _fail(End.UNCOUNTED, failures.build_failure(Reason.POD_DISRUPTED, text))


def _decide_without_pod(job: ChildJob, is_lost_again: bool) -> Outcome:
    if job.is_complete:
        text = f"Job {job.name} completed but its pod and message are gone; the next attempt looks at what it committed"
        # Once may happen to anybody; whatever removes the pods each time would make attempts without end.
        end = End.COUNTED if is_lost_again else End.UNCOUNTED
        return Outcome(end, Milestone.MESSAGE_LOST.value, failures.build_failure(Reason.INTERNAL, text))
    text = f"Job {job.name} failed and its pod is gone: {job.failed_reason}: {job.failed_message}"
    return _fail(End.COUNTED, failures.build_failure(Reason.INTERNAL, text))


def _decide_unproven(attempt: Attempt, pod: ChildPod) -> Outcome:
    missing = "preparedSHA256" if attempt.stage == Stage.PREPARE else "manifestSHA256"
    text = f"pod {pod.name} ended with 0 but its termination message has no {missing}: nothing was committed"
    return _fail(End.FINAL, failures.build_failure(Reason.ARTIFACT_MISSING, text, exit_code=0))


def _decide_failed_pod(attempt: Attempt, pod: ChildPod, memory_remedy: str) -> Outcome:
    code = pod.exit_code
    if pod.is_oom_killed:
        text = f"pod {pod.name} used more memory than its limit and was killed"
        return _fail(End.COUNTED, failures.build_failure(Reason.OUT_OF_MEMORY, text, memory_remedy, code))
    message = parse_message(pod.termination_text, Stage(attempt.stage), attempt.number)
    if code in exits.FINAL_EXIT_CODES:
        return _fail(End.FINAL, _describe(pod, message))
    if pod.disruption or code in exits.IGNORED_EXIT_CODES:
        text = pod.disruption or f"pod {pod.name} was stopped by a signal"
        return _fail(End.UNCOUNTED, failures.build_failure(Reason.POD_DISRUPTED, text, exit_code=code))
    if code is None and pod.started_at is None:
        # Its node has refused it, as the kubelet does when somebody else was faster or a device is gone.
        return _fail(End.UNCOUNTED, failures.build_failure(Reason.POD_DISRUPTED, _tell_end(pod)))
    return _fail(End.COUNTED, _describe(pod, message))


def _describe(pod: ChildPod, message: TerminationMessage | None) -> Failure:
    """Build the failure from message and exit code; the code limits what the message may claim."""
    code = pod.exit_code
    allowed = exits.REASONS_BY_EXIT_CODE.get(code if code is not None else -1, (Reason.INTERNAL,))
    if message is not None and message.reason in allowed:
        return failures.build_failure(Reason(message.reason), message.message or _tell_end(pod), message.remedy, code)
    # Without a message 137 may be anything from an impatient node to `kill -9`: memory is only blamed on evidence.
    reason = Reason.INTERNAL if code == ExitCode.KILLED else allowed[0]
    text = message.message if message is not None else _find_last_words(pod.termination_text)
    remedy = message.remedy if message is not None else ""
    return failures.build_failure(reason, f"{_tell_end(pod)}: {text}" if text else _tell_end(pod), remedy, code)


def _find_last_words(text: str) -> str:
    """Return what of a text without a message is worth reading: of the end of a log, which the kubelet puts there, the
    last line's message; else all of it.
    """
    lines = text.strip().splitlines()
    try:
        last = json.loads(lines[-1]) if lines else None
    except ValueError:
        return text.strip()
    return f"its log ends with: {last['message']}" if isinstance(last, dict) and "message" in last else text.strip()


def _tell_end(pod: ChildPod) -> str:
    if pod.exit_code is None:
        text = f"pod {pod.name} failed before its container ran ({pod.reason or 'no reason given'})"
        return f"{text}: {pod.message.strip()}" if pod.message.strip() else text
    known = _CRASHES.get(ExitCode(pod.exit_code)) if pod.exit_code in set(ExitCode) else None
    return f"pod {pod.name} ended with exit code {pod.exit_code}" + (f" ({known})" if known else "")

"""What `runPolicy.suspend` asks for: stop the live attempt, wait for its end, hold, or go on.

Suspension deletes the live Job, with and without a queue: `Job.spec.suspend` belongs to Kueue alone. An attempt that
was told to stop ends even if the user changes their mind meanwhile, and the next one goes on.
"""

from enum import StrEnum


class Step(StrEnum):
    GO_ON = "go on"
    STOP = "stop the live Job"
    WAIT = "wait until the Job is gone"
    HOLD = "hold: nothing runs"


def decide_step(*, is_wanted: bool, is_stopping: bool, has_job: bool, is_job_deleting: bool) -> Step:
    """Decide what suspension means for the open attempt.

    Args:
        is_wanted: `runPolicy.suspend` is true.
        is_stopping: the open attempt was told to stop in an earlier pass.
        has_job: the attempt's Job exists.
        is_job_deleting: it is on its way out.
    """
    if not (is_wanted or is_stopping):
        return Step.GO_ON
    if has_job:
        return Step.WAIT if is_job_deleting else Step.STOP
    return Step.HOLD if is_wanted else Step.GO_ON

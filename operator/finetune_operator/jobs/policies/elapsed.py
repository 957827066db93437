"""How long a run may run and how long it may wait.

Running time is summed over attempts; the child Job's own `activeDeadlineSeconds` only holds while the operator is down,
because the Job controller starts that timer anew at every resume and counts waiting for a node too. Pure; the clock is
an argument, and no duration is ever negative, whatever the clocks do.
"""

from datetime import datetime

JOB_DEADLINE_FLOOR = 1
"""Least activeDeadlineSeconds that the API server accepts for a Job."""


def compute_elapsed_seconds(since: datetime | None, until: datetime) -> int:
    """Return whole seconds between two moments; 0 if there is no first one or it lies later."""
    return 0 if since is None else max(0, int((until - since).total_seconds()))


def compute_job_deadline_seconds(left: int, pending_limit: int) -> int:
    """Return the child Job's own limit: what is left to run plus the longest wait.

    Several waits may together take longer; a Job that ends so is no end of the run.
    """
    return max(JOB_DEADLINE_FLOOR, left) + pending_limit


def compute_wait_seconds(limit: int, used: int) -> float:
    """Return how long until a limit is reached; at least 0."""
    return float(max(0, limit - used))


def is_reached(limit: int, used: int) -> bool:
    """Tell whether a limit is used up."""
    return used >= limit

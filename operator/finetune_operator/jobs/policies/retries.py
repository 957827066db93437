"""When a failed attempt is tried again: back-off between counted failures, and when they are spent.

The time of the next attempt is computed from the end of the last one and a jitter that depends on the job and the
attempt alone, so that a restarted operator waits for the same moment. Pure; the clock is an argument.
"""

import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta

from finetune_api.kinds.finetunejob.status import Reason

FIRST_BACKOFF_SECONDS = 10
MAX_BACKOFF_SECONDS = 360
"""Kubernetes' Job controller waits 10 s doubled up to 6 min: https://kubernetes.io/docs/concepts/workloads/controllers/job/"""
JITTER_FRACTION = 0.1
"""Either way (a choice): jobs that failed together don't come back together."""
_MAX_DOUBLINGS = 6
"""More would exceed the longest back-off anyway."""
UNCOUNTED_DELAY_SECONDS = 10
"""Before an attempt that follows an uncounted end other than the user's suspension (a choice): no hot loop."""


def compute_backoff_seconds(failed_attempts: int, seed: str) -> float:
    """Return the wait after that many counted failures: 10 s · 2^(n-1), at most 6 min, ±10 % by the seed."""
    if failed_attempts < 1:
        return float(UNCOUNTED_DELAY_SECONDS)
    seconds: int = min(FIRST_BACKOFF_SECONDS * 2 ** min(failed_attempts - 1, _MAX_DOUBLINGS), MAX_BACKOFF_SECONDS)
    share = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:4]) / 0xFFFF_FFFF
    return seconds * (1 + JITTER_FRACTION * (2 * share - 1))


def compute_retry_time(
    ended_at: datetime, failed_attempts: int, *, is_counted: bool, uid: str, attempt: int
) -> datetime:
    """Return when the attempt after this one may begin."""
    failures = failed_attempts if is_counted else 0
    return ended_at + timedelta(seconds=compute_backoff_seconds(failures, f"{uid}/{attempt}"))


def is_spent(failed_attempts: int, backoff_limit: int) -> bool:
    """Tell whether the failures exceed what may be retried; the first failure is no retry yet."""
    return failed_attempts > backoff_limit


def decide_final_reason(causes: Sequence[str], last: Reason) -> Reason:
    """Name the run's failure once its retries are spent: the cause if it was always the same, else the limit."""
    return last if set(causes) <= {last.value} else Reason.BACKOFF_LIMIT_EXCEEDED

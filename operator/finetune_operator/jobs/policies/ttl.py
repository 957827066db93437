"""When the child Jobs of a finished run are removed: `ttlSecondsAfterFinished`, set only after the end.

A Job of a run that goes on has no TTL, or a finished prepare Job would vanish during a long training and be taken for
lost. The FineTuneJob itself is never removed: GitOps would create it again, and it would train again.
"""

from collections.abc import Iterable


def find_changes(current: Iterable[tuple[str, str, int | None]], wanted: int) -> list[tuple[str, str]]:
    """Return name and uid of each finished Job whose TTL isn't the wanted one.

    Args:
        current: name, uid and TTL of the finished Jobs.
        wanted: `runPolicy.ttlSecondsAfterFinished` of the FineTuneJob.
    """
    return [(name, uid) for name, uid, ttl in current if ttl != wanted]

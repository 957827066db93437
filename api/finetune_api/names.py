"""Names of the child objects: always valid, at most 63 characters, never two alike.

A child's name is a pure function of the FineTuneJob's name and UID, the stage and the attempt, so that "create if
absent" is all the locking the operator needs.
"""

import hashlib

MAX_JOB_NAME_LENGTH = 40
"""Longest name of a FineTuneJob: with hash, stage and attempt a child stays below the 63 characters that a label value
and a pod's hostname may have (https://kubernetes.io/docs/concepts/overview/working-with-objects/names/)."""

_UID_HASH_LENGTH = 5


def build_child_name(job_name: str, job_uid: str, stage: str, attempt: int) -> str:
    """Name the Job of one attempt: `<name>-<5 of the UID's hash>-<stage>-<attempt>`.

    Args:
        job_name: an RFC 1035 label of at most 40 characters; the API server enforces it.
        job_uid: the FineTuneJob's UID; its hash keeps a re-created job from adopting its predecessor's children.
        stage: `prepare` or `train`.
        attempt: number of the attempt within the stage, from 1.
    """
    digest = hashlib.sha256(job_uid.encode()).hexdigest()[:_UID_HASH_LENGTH]
    return f"{job_name}-{digest}-{stage}-{attempt}"

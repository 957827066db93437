"""What the API server said when it refused to make a Job. Pure."""

import re

from finetune_api.kinds.finetunejob.status import Milestone, Reason

_UNKNOWN_OWNER = re.compile(r"cannot find RESTMapping")
"""The admission of owner references looks kinds up in a list that is up to half a minute old: right after the CRD was
installed it refuses every Job that names its FineTuneJob."""


def is_passing(code: int, text: str) -> bool:
    """Tell whether a refused create works by itself some seconds later."""
    return code == 429 or not 400 <= code < 500 or _UNKNOWN_OWNER.search(text) is not None


def is_invalid(code: int) -> bool:
    """Tell whether the same Job would be refused for ever: it isn't a valid one."""
    return code == 422


def classify(text: str) -> str:
    """Say why a Job was refused; `Pending` where only time is missing."""
    if is_uncounted_quota(text):
        return Milestone.PENDING.value
    if "exceeded quota" in text:
        return Reason.QUOTA_EXCEEDED.value
    return (Reason.POD_SECURITY_VIOLATION if "violates PodSecurity" in text else Reason.INTERNAL).value


def is_uncounted_quota(text: str) -> bool:
    """Tell whether only time is missing: nobody has counted yet what a new ResourceQuota limits.

    What the API server says then: https://github.com/kubernetes/kubernetes,
    staging/src/k8s.io/apiserver/pkg/admission/plugin/resourcequota/controller.go.
    """
    return "status unknown for quota" in text

"""Labels and annotations of a FineTuneJob that its Jobs and pods get too: those of the administrator's list.

Cost centres, service meshes and cloud identities go by them. What other controllers own is never passed on: a child
with the label or annotation of Argo CD, Flux or Helm would be taken for theirs and pruned, one with Kueue's would
choose its own queue, and a pod template with the Job controller's own labels is refused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from finetune_operator.jobs import patterns

RESERVED_DOMAINS = (
    "finetune.dev",
    "kueue.x-k8s.io",
    "argocd.argoproj.io",
    "fluxcd.io",
    "helm.sh",
    "app.kubernetes.io",
    "batch.kubernetes.io",
    "kubectl.kubernetes.io",
)
"""Keys of these domains, and of domains below them, belong to other controllers or to this one."""
RESERVED_KEYS = ("job-name", "controller-uid")
"""Labels without a domain that the Job controller sets: https://kubernetes.io/docs/reference/labels-annotations-taints/."""


@dataclass(frozen=True, slots=True)
class Inherited:
    """What a child gets of its FineTuneJob's metadata."""

    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


def choose(own: Mapping[str, str], allowed: Sequence[str]) -> dict[str, str]:
    """Return the entries whose keys match the patterns and are nobody else's."""
    return {key: value for key, value in own.items() if patterns.is_allowed(key, allowed) and not _is_reserved(key)}


def _is_reserved(key: str) -> bool:
    domain, slash, _ = key.rpartition("/")
    if not slash:
        return key in RESERVED_KEYS
    return any(domain == reserved or domain.endswith(f".{reserved}") for reserved in RESERVED_DOMAINS)

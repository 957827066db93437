"""What the controller remembers of each object, and the versions by which it knows what it has decided on. No I/O."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from finetune_operator.runtime.kind import Children, Refusal
from finetune_operator.runtime.plan import Manifest

ENDED_POD_PHASES = frozenset({"Succeeded", "Failed"})


@dataclass(slots=True)
class Record:
    """What the controller remembers of an object.

    Attributes:
        is_finished: nothing more is to be done, whatever its children do.
        failures: passes in a row that failed.
        written_version: resourceVersion of the last status written; the event that tells of it brings nothing new.
        heard_version: resourceVersion that the last event during the pass under way told of.
        seen: versions of the object and its children that were last decided on.
        added: a new object as its event brought it; a read would repeat that.
        is_from_resync: a resync asked for it: something was missed if there is something to do.
        refusals: by the name of a Job, why it could not be made.
    """

    is_finished: bool = False
    failures: int = 0
    written_version: str = ""
    heard_version: str = ""
    seen: frozenset[str] = frozenset()
    added: Manifest | None = None
    is_from_resync: bool = False
    refusals: dict[str, Refusal] = field(default_factory=dict)


def build_versions(manifest: Manifest, children: Children) -> frozenset[str]:
    """Return the versions of an object and of its children that have not ended, as a resync compares them."""
    live = [pod for pod in children.pods if (pod.get("status") or {}).get("phase") not in ENDED_POD_PHASES]
    return build_fingerprint(manifest["metadata"], (item["metadata"] for item in (*children.jobs, *live)))


def build_fingerprint(metadata: Manifest, children: Iterable[Manifest]) -> frozenset[str]:
    """Return what changes whenever an object or one of its children does."""
    return frozenset(f"{item['uid']}/{item.get('resourceVersion', '')}" for item in (metadata, *children))

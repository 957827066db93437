"""What remains of a finished run: live Jobs are deleted, the others expire. Pure."""

from finetune_operator.jobs.observe import FineTuneJob, Observed
from finetune_operator.jobs.policies import ttl
from finetune_operator.runtime.plan import Action, DeleteJob, PatchJob


def build_cleanup(job: FineTuneJob, observed: Observed) -> list[Action]:
    """Delete what still runs of a finished run, and let the rest expire."""
    wanted = (job.spec.get("runPolicy") or {}).get("ttlSecondsAfterFinished")
    owned = [child for child in observed.jobs if child.is_owned and not child.is_deleting]
    actions: list[Action] = [DeleteJob(child.name, child.uid) for child in owned if not child.is_finished]
    if isinstance(wanted, int):
        finished = [(child.name, child.uid, child.ttl_seconds) for child in owned if child.is_finished]
        changes = ttl.find_changes(finished, wanted)
        actions += [PatchJob(name, uid, {"ttlSecondsAfterFinished": wanted}) for name, uid in changes]
    return actions

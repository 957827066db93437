"""Carries out a plan: the status with the resourceVersion it was computed from, then the actions. Decides nothing."""

from finetune_operator.runtime.api_client import ApiError, Client
from finetune_operator.runtime.kind import Refusal
from finetune_operator.runtime.plan import Action, CreateJob, DeleteJob, Manifest, PatchJob, Plan
from finetune_operator.runtime.records import Record
from finetune_operator.runtime.resources import JOBS, Resource


class ConflictError(Exception):
    """What a decision was made on has changed since it was read; decide anew."""


async def write_status(client: Client, resource: Resource, manifest: Manifest, plan: Plan) -> Manifest:
    """Write the status if it differs; return the object as it is stored now.

    Raises:
        ConflictError: the object changed since it was read; nothing was done.
    """
    if not plan.status_patch:
        return manifest
    metadata = manifest["metadata"]
    patch = {"metadata": {"resourceVersion": metadata["resourceVersion"]}, "status": plan.status_patch}
    try:
        return await client.patch(resource, metadata["namespace"], metadata["name"], patch, "status")
    except ApiError as error:
        if error.code in (404, 409):
            raise ConflictError(str(error)) from error
        raise


async def act(client: Client, namespace: str, action: Action, record: Record) -> None:
    """Carry out one action.

    Raises:
        ConflictError: a Job of that name is there already.
        ApiError: the action was refused; why a Job was is kept in the record.
    """
    match action:
        case CreateJob(manifest):
            await _create(client, namespace, manifest, record)
        case DeleteJob(name, uid):
            await client.delete(JOBS, namespace, name, uid, "Foreground")
        case PatchJob(name, uid, spec):
            await _patch(client, namespace, name, {"metadata": {"uid": uid}, "spec": dict(spec)})


async def _create(client: Client, namespace: str, manifest: Manifest, record: Record) -> None:
    name = manifest["metadata"]["name"]
    try:
        await client.create(JOBS, namespace, manifest)
    except ApiError as error:
        # Ours from an earlier pass, or a stranger's: the next pass reads it and sees which.
        if error.code == 409:
            raise ConflictError(str(error)) from error
        # What it means is decided in the next pass.
        record.refusals[name] = Refusal(error.code, str(error))
        raise
    record.refusals.pop(name, None)


async def _patch(client: Client, namespace: str, name: str, patch: Manifest) -> None:
    try:
        await client.patch(JOBS, namespace, name, patch)
    except ApiError as error:
        # Gone, or another one has taken its name.
        if error.code not in (404, 409):
            raise

"""The spec of a cluster → the spec of this machine. Pure; whatever is changed is said."""

from dataclasses import dataclass

from finetune_api.kinds.finetunejob.spec import FineTuneJobSpec


@dataclass(frozen=True, slots=True)
class Adapted:
    """A spec for this machine; `notes` say what differs from the manifest."""

    spec: FineTuneJobSpec
    notes: tuple[str, ...]


def adapt_spec(spec: FineTuneJobSpec, *, steps: int | None, gpus: int) -> Adapted:
    """Take away what only a cluster has, and shorten the run where that was asked for.

    Args:
        spec: valid, as the manifest gives it.
        steps: optimizer steps instead of the manifest's length; None keeps it.
        gpus: GPUs of this machine to train on.
    """
    data = spec.model_dump(mode="json", exclude_none=True)
    notes = []
    if spec.resources.gpus != gpus:
        device = "" if gpus else ": the CPU trains"
        notes.append(f"spec.resources.gpus ({spec.resources.gpus}) is {gpus} here{device}")
        data["resources"]["gpus"] = gpus
    if not gpus:
        data["resources"].pop("gpuResource", None)
    if steps is not None:
        notes.append(f"the run ends after {steps} optimizer steps: its figures are those of a trial")
        data["training"].pop("epochs", None)
        data["training"]["maxSteps"] = steps
        if spec.evaluation.every_steps is not None:
            data["evaluation"]["everySteps"] = min(spec.evaluation.every_steps, steps)
    for part in ("storage", "placement"):
        data.pop(part)
    data["trainer"].pop("image", None)
    data["trainer"].pop("imagePullSecrets", None)
    return Adapted(FineTuneJobSpec.model_validate(data), tuple(notes))

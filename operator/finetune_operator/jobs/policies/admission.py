"""What the administrator allows: trainer images and endpoints without encryption.

Both stand in the operator's configuration, which the API server doesn't know, so the operator refuses the job itself.
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from urllib.parse import urlsplit

from finetune_api.kinds.finetunejob.spec import FineTuneJobSpec
from finetune_api.validation import FieldError


def find_refusals(
    spec: FineTuneJobSpec,
    *,
    recorded_image: str,
    default_image: str,
    allowed_images: Sequence[str],
    insecure_endpoints: Sequence[str],
) -> list[FieldError]:
    """Return everything that the administrator does not allow.

    Args:
        recorded_image: of the attempts so far; empty before the first.
    """
    return [
        *_check_image(spec.trainer.image, recorded_image, default_image, allowed_images),
        *_check_endpoint(spec.storage.endpoint_url, insecure_endpoints),
    ]


def _check_image(own: str, recorded: str, default_image: str, allowed: Sequence[str]) -> list[FieldError]:
    image = own or recorded
    if not image or image == default_image or any(fnmatchcase(image, glob) for glob in allowed):
        return []
    names = ", ".join([default_image, *allowed])
    if own:
        rule = f"must match one of the images this operator allows: {names}; or leave it empty"
        return [FieldError("spec.trainer.image", own, rule)]
    rule = (
        f"must still be one of the images this operator allows: {names}; "
        "allow it until the runs that began with it have ended, or create the FineTuneJob again"
    )
    return [FieldError("status.trainerImage", recorded, rule)]


def _check_endpoint(url: str, insecure: Sequence[str]) -> list[FieldError]:
    address = urlsplit(url)
    host = address.hostname or ""
    if address.scheme != "http" or any(fnmatchcase(host, glob) for glob in insecure):
        return []
    return [
        FieldError(
            "spec.storage.endpointURL",
            url,
            "must begin with https://: without encryption this operator allows only "
            + (", ".join(insecure) or "no host"),
        )
    ]

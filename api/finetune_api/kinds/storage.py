"""How a kind says where its object store is and who may ask it."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from finetune_api.kinds.field_types import ENDPOINT_PATTERN, REGION_PATTERN, Name
from finetune_api.kinds.object_model import Model


class AddressingStyle(StrEnum):
    PATH = "path"
    VIRTUAL = "virtual"


class Storage(Model):
    secret_name: Name = ""
    """secretName of a Secret in the job's namespace with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and optionally
    AWS_SESSION_TOKEN. Empty: the pod's own identity."""
    endpoint_url: Annotated[str, Field(pattern=ENDPOINT_PATTERN, max_length=512)] = ""
    """endpointURL of an S3-compatible store. Empty: AWS."""
    region: Annotated[str, Field(max_length=64, pattern=REGION_PATTERN)] = "us-east-1"
    """region that requests are signed for."""
    addressing_style: AddressingStyle = AddressingStyle.VIRTUAL
    """addressingStyle: `virtual` puts the bucket into the host name, `path` into the path."""

"""Types of single fields that several objects use: addresses, names of Kubernetes objects, bounded texts.

A pattern stands here once, for pydantic, for the CRD and for the JSON schema; its words stand in
`finetune_api.validation`.
"""

import re
from collections.abc import Sequence
from typing import Annotated, Any, Protocol

from pydantic import AfterValidator, Field, StringConstraints
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError

S3_URI_PATTERN = r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^/\\\x00]+)*/?$"
MODEL_URI_PATTERN = r"^(s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^/\\\x00]+)*/?|hf://[A-Za-z0-9._-]+/[A-Za-z0-9._-]+(@[A-Za-z0-9._-]+)?)$"
SHA256_PATTERN = r"^([0-9a-f]{64})?$"
LABEL_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
OPTIONAL_NAME_PATTERN = r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*)?$"
ENDPOINT_PATTERN = r"^(https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?/?)?$"
COLUMN_PATTERN = r"^[^\x00-\x1f]+$"
LABEL_VALUE_PATTERN = r"^([A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?)?$"
LABEL_KEY_PATTERN = r"^(([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?)?$"
ENV_NAME_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]*$"
_DOT_SEGMENT_PATTERN = r"(^|/)[.]{1,2}(/|$)"
_DOT_SEGMENT_MESSAGE = "must not contain the path segments . and .."
_DOT_SEGMENT_RULE: JsonDict = {
    "rule": f"!self.matches('{_DOT_SEGMENT_PATTERN}')",
    "message": _DOT_SEGMENT_MESSAGE,
    "reason": "FieldValueInvalid",
}


def _refuse_dot_segments(uri: str) -> str:
    if re.search(_DOT_SEGMENT_PATTERN, uri):
        raise PydanticCustomError("dot_segment", _DOT_SEGMENT_MESSAGE)
    return uri


def _address(pattern: str) -> tuple[object, AfterValidator]:
    field = Field(pattern=pattern, max_length=1024, json_schema_extra={"x-kubernetes-validations": [_DOT_SEGMENT_RULE]})
    return field, AfterValidator(_refuse_dot_segments)


class _Named(Protocol):
    @property
    def name(self) -> str: ...


def _refuse_repeated(items: Sequence[_Named | str]) -> list[Any]:
    """Keep lists that are maps or sets for the API server free of repetitions here too."""
    keys = [item if isinstance(item, str) else item.name for item in items]
    repeated = next((key for index, key in enumerate(keys) if key in keys[:index]), None)
    if repeated is not None:
        raise PydanticCustomError("repeated", "must not repeat {name}", {"name": repeated})
    return list(items)


Unique = AfterValidator(_refuse_repeated)
S3Uri = Annotated[str, *_address(S3_URI_PATTERN)]
ModelUri = Annotated[str, *_address(MODEL_URI_PATTERN)]
Name = Annotated[str, Field(pattern=OPTIONAL_NAME_PATTERN, max_length=253)]
Text = Annotated[str, StringConstraints(max_length=4096)]

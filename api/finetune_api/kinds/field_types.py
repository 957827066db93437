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

_UNSEEN = r"\x00-\x1f\x7f-\x9f\u00a0\u00ad\u1680\u180e\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\ufeff"
"""What can't be seen but for the ordinary blank: control characters, ESC, other blanks, zero widths, directions.
Written so that Rust (pydantic), Python and JSON schema read it alike; Go reads it as `finetune_api.crd` writes it."""
_EDGE = rf"[^/\\ {_UNSEEN}]"
_SEGMENT = rf"{_EDGE}([^/\\{_UNSEEN}]*{_EDGE})?"
_BUCKET = r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"
"""https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html"""
_S3_URI = rf"s3://{_BUCKET}(/{_SEGMENT})*/?"
_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_QUALIFIED = r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
_HOST = r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?([.][A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*[.]?"
_PORT = r"(:([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?"
_PATH_PART = r"[a-z0-9]+(([.]|_|__|-+)[a-z0-9]+)*"

S3_URI_PATTERN = rf"^{_S3_URI}$"
MODEL_URI_PATTERN = rf"^({_S3_URI}|hf://[A-Za-z0-9._-]+/[A-Za-z0-9._-]+(@[A-Za-z0-9._-]+)?)$"
SHA256_PATTERN = r"^([0-9a-f]{64})?$"
LABEL_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
OPTIONAL_NAME_PATTERN = r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*)?$"
ENDPOINT_PATTERN = rf"^(https?://{_HOST}{_PORT}/?)?$"
REGION_PATTERN = r"^[a-z0-9-]*$"
COLUMN_PATTERN = rf"^[^{_UNSEEN}]+$"
PRINTABLE_PATTERN = rf"^[^{_UNSEEN}]*$"
MODULE_PATTERN = r"^[A-Za-z0-9_.-]+$"
LABEL_VALUE_PATTERN = r"^([A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?)?$"
LABEL_KEY_PATTERN = rf"^(({_LABEL}([.]{_LABEL})*/)?{_QUALIFIED})?$"
RESOURCE_PATTERN = rf"^{_LABEL}([.]{_LABEL})+/{_QUALIFIED}$"
"""An extended resource: https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/#extended-resources"""
_TAG_OR_DIGEST = r"(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?"
IMAGE_PATTERN = rf"^(({_HOST}{_PORT}/)?{_PATH_PART}(/{_PATH_PART})*{_TAG_OR_DIGEST})?$"
"""https://pkg.go.dev/github.com/distribution/reference: what the kubelet takes for an image's name."""
ENV_NAME_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]*$"
_DOT_SEGMENT_PATTERN = r"/[.]{1,2}(/|$)|^s3://[^/]*[.][.]"
DOT_SEGMENT_MESSAGE = "must not contain the path segments . and .., nor .. in the name of a bucket"
_DOT_SEGMENT_RULE: JsonDict = {
    "rule": f"!self.matches('{_DOT_SEGMENT_PATTERN}')",
    "message": DOT_SEGMENT_MESSAGE,
    "reason": "FieldValueInvalid",
}


def _refuse_dot_segments(uri: str) -> str:
    if re.search(_DOT_SEGMENT_PATTERN, uri):
        raise PydanticCustomError("dot_segment", DOT_SEGMENT_MESSAGE)
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

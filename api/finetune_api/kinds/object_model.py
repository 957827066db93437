"""Base of every object of the API: strict about unknown fields, camelCase outside, snake_case inside, frozen."""

from pydantic import BaseModel, ConfigDict

_INITIALISMS = {"sha256", "uid", "uri", "url"}


def build_field_name(python_name: str) -> str:
    """Write `job_uid` as `jobUID`: camelCase, initialisms in capitals, as the Kubernetes API conventions have it."""
    first, *rest = python_name.split("_")
    return first + "".join(word.upper() if word in _INITIALISMS else word.capitalize() for word in rest)


class Model(BaseModel):
    """Base of every object of the API: strict about unknown fields, camelCase outside, frozen."""

    model_config = ConfigDict(
        alias_generator=build_field_name,
        extra="forbid",
        frozen=True,
        populate_by_name=True,
        serialize_by_alias=True,
        use_attribute_docstrings=True,
    )

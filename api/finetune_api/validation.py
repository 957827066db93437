"""Every error of a manifest or a spec at once, as `<path> (<value>) must <rule>; <what to do>`.

Nothing here raises for what a user wrote, and nothing stops at the first error. Used by the CLI, the operator and the
trainer's launcher; the API server enforces the same through the CRD.
"""

import json
import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from finetune_api import aliases, group, names, quantities, rules, wording
from finetune_api.kinds import field_types, object_model
from finetune_api.kinds.finetunejob.spec import FineTuneJobSpec

NAME_PATTERN = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"

PATTERN_RULES = {
    quantities.DECIMAL_PATTERN: 'must be a decimal string such as "0.05" or "2e-4"',
    quantities.POSITIVE_DECIMAL_PATTERN: 'must be a decimal string above 0 such as "2", "0.001" or "2e-4"',
    quantities.FRACTION_PATTERN: 'must be a decimal string from "0" to "1" such as "0.1"',
    quantities.BELOW_ONE_PATTERN: 'must be a decimal string from "0" to below "1" such as "0.05"',
    quantities.QUANTITY_PATTERN: 'must be a Kubernetes quantity such as "4", "500m" or "16Gi"',
    quantities.CPU_PATTERN: 'must be cores as a Kubernetes quantity such as "4", "0.5" or "500m"',
    quantities.BYTES_PATTERN: 'must be bytes as a Kubernetes quantity such as "16Gi" or "500M"',
    field_types.S3_URI_PATTERN: "must be an address of the form s3://bucket/key, "
    "without blanks at the ends of its parts and without control characters",
    field_types.MODEL_URI_PATTERN: "must be an address of the form s3://bucket/folder/ or s3://bucket/file.gguf, "
    "without blanks at the ends of its parts and without control characters",
    field_types.SHA256_PATTERN: "must be 64 hexadecimal digits in lower case, or empty",
    field_types.LABEL_PATTERN: "must consist of lower-case letters, digits and -, no - at an end",
    field_types.LABEL_VALUE_PATTERN: "must be a label's value: letters, digits, -, _ and ., no sign at an end",
    field_types.LABEL_KEY_PATTERN: "must be a label's key: letters, digits, -, _ and ., perhaps after a domain and /",
    field_types.OPTIONAL_NAME_PATTERN: "must be the name of a Kubernetes object: lower-case letters, digits, - and .",
    field_types.ENDPOINT_PATTERN: "must be http:// or https:// with host and optional port, without a path",
    field_types.REGION_PATTERN: "must be a region such as us-east-1",
    field_types.COLUMN_PATTERN: "must not contain control or invisible characters",
    field_types.PRINTABLE_PATTERN: "must not contain control or invisible characters",
    field_types.ENV_NAME_PATTERN: "must be the name of an environment variable",
    field_types.MODULE_PATTERN: "must be the name of a layer: letters, digits, -, _ and .",
    field_types.RESOURCE_PATTERN: "must be an extended resource such as nvidia.com/gpu",
    field_types.IMAGE_PATTERN: "must be the name of an image such as registry.example.com/team/trainer:1.0, "
    "with a tag or a digest",
}
"""What each pattern means, in words; the API server says the same (`finetune_api.crd`)."""


_RULES_BY_TYPE = {
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "string_too_long": "must have at most {max_length} characters",
    "string_too_short": "must not be empty",
    "too_long": "must have at most {max_length} items",
    "too_short": "must have at least {min_length} item",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be a string",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "dict_type": "must be an object",
    "list_type": "must be a list",
    "dot_segment": field_types.DOT_SEGMENT_MESSAGE,
}
"""By pydantic's error type: https://docs.pydantic.dev/latest/errors/validation_errors/"""


@dataclass(frozen=True, slots=True)
class FieldError:
    """One finding. `value` is empty where nothing was given."""

    path: str
    value: str
    message: str

    def __str__(self) -> str:
        shown = f" ({self.value})" if self.value else ""
        return f"{self.path}{shown} {self.message}"


def validate_manifest(manifest: object) -> list[FieldError]:
    """Check a whole FineTuneJob object as a user writes it."""
    if not isinstance(manifest, Mapping):
        return [FieldError("document", wording.show_value(manifest), f"must be an object of kind {group.KIND}")]
    errors = [*_check_header(manifest), *_check_name(manifest.get("metadata"))]
    known = {"apiVersion", "kind", "metadata", "spec", "status"}
    errors += [FieldError(str(key), "", _unknown_field(str(key), known)) for key in manifest if key not in known]
    if "spec" not in manifest:
        return [*errors, FieldError("spec", "", "is missing; it must be given")]
    return errors + _validate_spec_data(manifest["spec"])


def validate_spec(parsed: FineTuneJobSpec) -> list[FieldError]:
    """Check the rules across fields of a spec whose single fields are valid."""
    found = ((rule, rule.find(parsed)) for rule in rules.RULES)
    return [FieldError(f"spec.{rule.path}", value, rule.message) for rule, value in found if value is not None]


def parse_errors(
    error: ValidationError, prefix: str, model: type[BaseModel], source: object = None
) -> list[FieldError]:
    """Put pydantic's findings into the product's form.

    Args:
        error: what `model` raised.
        prefix: path of the parsed object, `spec` for instance.
        model: the class that was parsed into; its fields are searched for the nearest known name.
        source: what the user wrote, where that shows values better than what was parsed.
    """
    return [_parse_detail(detail, prefix, model, source) for detail in error.errors()]


def _validate_spec_data(data: object) -> list[FieldError]:
    """Check single fields; then the rules across fields on whatever part of the spec is valid."""
    try:
        return validate_spec(_parse_as_user_wrote(data))
    except ValidationError as error:
        errors = parse_errors(error, "spec", FineTuneJobSpec, data)
        remainder = _remove_paths(data, [detail["loc"] for detail in error.errors()])
    try:
        rest = validate_spec(_parse_as_user_wrote(remainder))
    except ValidationError:
        return errors
    reported = {item.path for item in errors}
    return errors + [item for item in rest if item.path not in reported]


def _parse_as_user_wrote(data: object) -> FineTuneJobSpec:
    """Parse as strictly as the API server: serialized names only, and `"16"` is no number."""
    return FineTuneJobSpec.model_validate_json(json.dumps(data, default=str), strict=True, by_alias=True, by_name=False)


def _check_header(manifest: Mapping[str, Any]) -> Iterator[FieldError]:
    for key, wanted in (("apiVersion", group.API_VERSION), ("kind", group.KIND)):
        value = manifest.get(key)
        if value is None:
            yield FieldError(key, "", f"is missing; it must be {wanted}")
        elif value != wanted:
            yield FieldError(key, wording.show_value(value), f"must be {wanted}")


def _check_name(metadata: object) -> Iterator[FieldError]:
    if not isinstance(metadata, Mapping):
        yield FieldError("metadata", "", "is missing; it must give a name")
        return
    name = metadata.get("name")
    if name is None and isinstance(metadata.get("generateName"), str):
        return
    if not isinstance(name, str):
        yield FieldError("metadata.name", wording.show_value(name), "must be given as a string")
    elif len(name) > names.MAX_JOB_NAME_LENGTH:
        yield FieldError(
            "metadata.name",
            name,
            f"must have at most {names.MAX_JOB_NAME_LENGTH} characters, not {len(name)}: names of its pods are longer",
        )
    elif not re.fullmatch(NAME_PATTERN, name):
        yield FieldError(
            "metadata.name",
            name,
            "must consist of lower-case letters, digits and -, begin with a letter and end with a letter or digit",
        )


def _parse_detail(detail: ErrorDetails, prefix: str, model: type[BaseModel], source: object) -> FieldError:
    location = tuple(part for part in detail["loc"] if part != "[key]")
    path = _build_path(prefix, location)
    kind, context = detail["type"], detail.get("ctx", {})
    value = _find_value(source, location, detail["input"])
    if kind == "missing":
        return FieldError(path, "", "is missing; it must be given")
    if kind == "extra_forbidden":
        parent = ".".join("[]" if isinstance(part, int) else part for part in location[:-1]).replace(".[]", "[]")
        parent = parent if model is FineTuneJobSpec else parent.removeprefix("spec").removeprefix(".")
        known = _field_names(_find_model(model, location[:-1]))
        return FieldError(path, "", _unknown_field(str(location[-1]), known, parent))
    if kind == "string_type" and isinstance(value, int | float) and not isinstance(value, bool):
        return FieldError(path, wording.show_value(value), f'must be a decimal string; write it in quotes: "{value}"')
    return FieldError(path, wording.show_value(value), _build_rule(kind, context, value, detail["msg"]))


def _build_rule(kind: str, context: Mapping[str, object], value: object, fallback: str) -> str:
    """Say in words what must hold, from pydantic's error type and its context."""
    if kind == "string_pattern_mismatch":
        return PATTERN_RULES.get(str(context["pattern"]), f"must match {context['pattern']}")
    if kind == "repeated":
        return f"must not repeat {context['name']}"
    if kind in ("enum", "literal_error"):
        allowed = [item.strip("'") for item in re.findall(r"'[^']*'", str(context["expected"]))]
        return f"must be one of {', '.join(allowed)}" + wording.suggest(str(value), allowed, aliases.VALUES)
    return _RULES_BY_TYPE.get(kind, f"must be valid: {fallback}").format(**context)


def _unknown_field(name: str, known: set[str], parent: str = "") -> str:
    """Refuse a field; suggest one beside it, or the path of one elsewhere, by its own or another tool's name.

    Args:
        parent: path of the object the field stands in, below `spec`, list positions as `[]`.
    """
    folded = wording.fold_name(name)
    meant = next((item for item in sorted(known) if wording.fold_name(item) == folded), None)
    if meant is None:
        path = aliases.FIELDS.get(folded) or _find_elsewhere(folded)
        place, _, last = (path or "").rpartition(".")
        meant = last if path and place == parent and last in known else f"spec.{path}" if path else None
    meant = meant or wording.find_nearest(name, sorted(known))
    return "is not a known field; " + (f"did you mean {meant}?" if meant else "remove it")


def _find_elsewhere(folded: str) -> str | None:
    """Return the path of the one field of a spec that has this name; None where there are none or several."""
    found = [path for path in build_field_paths() if wording.fold_name(path.rpartition(".")[2]) == folded]
    return found[0] if len(found) == 1 else None


def build_field_paths(model: type[BaseModel] = FineTuneJobSpec, prefix: str = "") -> list[str]:
    """Return the paths of all fields below a model, such as `data[].train.uri`."""
    paths: list[str] = []
    for name, field in model.model_fields.items():
        path = f"{prefix}{object_model.build_field_name(name)}"
        paths.append(path)
        below = next(_models_in(field.annotation), None)
        if below is not None:
            is_list = "list[" in str(field.annotation)
            paths += build_field_paths(below, f"{path}[]." if is_list else f"{path}.")
    return paths


def _build_path(prefix: str, location: tuple[int | str, ...]) -> str:
    return prefix + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)


def _find_value(source: object, location: tuple[int | str, ...], otherwise: object) -> object:
    """Follow a path in what the user wrote; a YAML reader may know a number as it stood there."""
    node: Any = source
    try:
        for part in location:
            node = node[part]
    except (KeyError, IndexError, TypeError):
        return otherwise
    return otherwise if source is None else node


def _find_model(model: type[BaseModel], location: tuple[int | str, ...]) -> type[BaseModel]:
    """Follow a path of serialized names to the model that lies there; list positions are passed over."""
    for part in location:
        if isinstance(part, int):
            continue
        fields = {object_model.build_field_name(name): field for name, field in model.model_fields.items()}
        if part in fields:
            model = next(_models_in(fields[part].annotation), model)
    return model


def _models_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def _field_names(model: type[BaseModel]) -> set[str]:
    return {object_model.build_field_name(name) for name in model.model_fields}


def _remove_paths(data: object, locations: list[tuple[int | str, ...]]) -> object:
    """Copy the data without what was found wrong, so that the rest can still be checked."""
    copy = deepcopy(data)
    for location in sorted(locations, key=str, reverse=True):
        node: Any = copy
        try:
            for part in location[:-1]:
                node = node[part]
            del node[location[-1]]
        except (KeyError, IndexError, TypeError):
            continue
    return copy

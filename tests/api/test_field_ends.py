"""Every field's ends and neighbours, offline: what is accepted, what is refused, and by which words."""

import pytest
from field_ends import ACCEPTED, ENDS, REFUSED, Accepted, build_manifest
from malformed import Malformed

from finetune_api import validation


@pytest.mark.parametrize("case", ACCEPTED, ids=lambda case: case.sentence)
def test_a_value_at_the_end_of_its_range_is_accepted(case: Accepted) -> None:
    assert validation.validate_manifest(build_manifest(case)) == []


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.sentence)
def test_a_value_beyond_its_range_is_refused_in_one_sentence(case: Malformed) -> None:
    errors = validation.validate_manifest(build_manifest(case))
    assert len(errors) == 1, errors
    assert case.want_text in errors[0].message
    assert str(errors[0]).isprintable()


def test_the_corpus_is_large() -> None:
    assert len(ACCEPTED) > 150
    assert len(REFUSED) > 250


NOT_YET = {
    "spec.data[].instruction", "spec.data[].weight", "spec.method.preference",
}  # fmt: skip
"""Fields whose only accepted value is the default in this version."""


def test_every_field_of_the_spec_has_its_ends_tried() -> None:
    paths = [f"spec.{path}" for path in validation.build_field_paths()]
    leaves = {path for path in paths if not any(other.startswith((f"{path}.", f"{path}[].")) for other in paths)}
    tried = {ends.path.replace(".0", "[]") for ends in ENDS}
    untried = {leaf for leaf in leaves if not any(leaf == path or leaf.startswith(f"{path}[].") for path in tried)}
    assert untried - {"spec.task"} == NOT_YET

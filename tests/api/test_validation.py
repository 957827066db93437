"""What is refused offline, by which words, and that everything wrong is said at once."""

import pytest
import yaml
from field_ends import build_manifest
from malformed import MALFORMED, Malformed
from manifests import make_manifest

from finetune_api import validation


def test_the_valid_object_has_no_errors() -> None:
    assert validation.validate_manifest(make_manifest()) == []


@pytest.mark.parametrize("case", MALFORMED, ids=lambda case: case.sentence)
def test_a_malformed_object_is_refused_with_the_field_and_the_rule(case: Malformed) -> None:
    errors = validation.validate_manifest(build_manifest(case))
    assert [error.path for error in errors] == [case.want_path]
    assert case.want_text in errors[0].message


def test_there_are_more_than_forty_malformed_objects_and_each_is_different() -> None:
    assert len({case.sentence for case in MALFORMED}) == len(MALFORMED) == 78


def test_all_errors_are_said_at_once_in_one_form() -> None:
    manifest = make_manifest(
        name="Movies",
        spec__method={"kind": "Full", "quantization": "Int8", "lora": {"rank": 0}},
        spec__training={"learningRate": 0.0002, "epochs": "2", "maxSteps": 3, "bachSize": 4},
    )
    assert [str(error) for error in validation.validate_manifest(manifest)] == [
        "metadata.name (Movies) must consist of lower-case letters, digits and -, "
        "begin with a letter and end with a letter or digit",
        "spec.method.lora.rank (0) must be greater than 0",
        'spec.training.learningRate (0.0002) must be a decimal string; write it in quotes: "0.0002"',
        "spec.training.bachSize is not a known field; did you mean batchSize?",
        "spec.method.quantization (Int8) must be None unless method.kind is LoRA: only a frozen base can be quantized",
        "spec.training.maxSteps (3) must be absent where epochs is given; keep one of the two",
    ]


@pytest.mark.parametrize(
    ("document", "want"),
    [
        (None, ["document (null) must be an object of kind FineTuneJob"]),
        ([], ["document (a list) must be an object of kind FineTuneJob"]),
        (
            {},
            [
                "apiVersion is missing; it must be finetune.dev/v1alpha1",
                "kind is missing; it must be FineTuneJob",
                "metadata is missing; it must give a name",
                "spec is missing; it must be given",
            ],
        ),
        ({**make_manifest(), "spec": 5}, ["spec (5) must be an object"]),
        ({**make_manifest(), "spek": {}}, ["spek is not a known field; did you mean spec?"]),
        ({**make_manifest(), "kind": "FinetuneJob"}, ["kind (FinetuneJob) must be FineTuneJob"]),
    ],
    ids=["nothing", "a list", "an empty object", "a spec that is a number", "an unknown top field", "a misspelt kind"],
)
def test_objects_that_are_no_job_at_all_are_refused_in_words(document: object, want: list[str]) -> None:
    assert [str(error) for error in validation.validate_manifest(document)] == want


def test_a_yaml_reader_that_turns_decimals_into_numbers_is_met_with_the_remedy() -> None:
    text = yaml.safe_dump(make_manifest()).replace("task:", "training: {learningRate: 1.5e-4}\n  task:")
    assert [str(error) for error in validation.validate_manifest(yaml.safe_load(text))] == [
        'spec.training.learningRate (0.00015) must be a decimal string; write it in quotes: "0.00015"'
    ]

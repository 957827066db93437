"""Every field's ends and neighbours on a real API server: the verdict of `finetune validate`, in the same words."""

import json
import random
import re
from collections.abc import Iterator
from typing import Any

import operator_driver
import pytest
from field_ends import ACCEPTED, REFUSED, Accepted, build_manifest
from kubernetes.client import ApiException
from malformed import Malformed
from manifests import Manifest, edit_manifest

from finetune_api import rules, validation
from finetune_devcluster import api_client
from finetune_devcluster.api_client import Client

pytestmark = pytest.mark.contract

NAMESPACE = "field-ends"
OUR_WORDS = {*validation.PATTERN_RULES.values(), *(rule.message for rule in rules.RULES)}
"""What the API server says as we do; lengths, ranges, enumerations and types it refuses in its own words."""


@pytest.fixture(scope="module")
def client(control_plane: Any) -> Iterator[Client]:
    """A client of an API server that knows the CRD, and a namespace of this file's own."""
    api_client.create_namespace(control_plane.kubeconfig, NAMESPACE)
    with api_client.connect(control_plane.kubeconfig) as client:
        operator_driver.install_crd(client)
        yield client


@pytest.mark.parametrize("case", ACCEPTED, ids=lambda case: case.sentence)
def test_what_is_accepted_offline_is_accepted_by_the_api_server(case: Accepted, client: Client) -> None:
    created = client.create(edit_manifest(build_manifest(case), "metadata.namespace", NAMESPACE))
    client.delete(operator_driver.FINE_TUNE_JOB, created["metadata"]["name"], NAMESPACE)


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.sentence)
def test_what_is_refused_offline_is_refused_by_the_api_server_in_the_same_words(
    case: Malformed, client: Client
) -> None:
    manifest = build_manifest(case)
    (error,) = validation.validate_manifest(manifest)
    with pytest.raises(ApiException) as caught:
        client.create(manifest)
    causes = json.loads(caught.value.body)["details"].get("causes", [])
    refusals = [(_spell(cause.get("field", "")), cause.get("message", "")) for cause in causes]
    named = [text for field, text in refusals if error.path.startswith(field) and field.count(".") > 0]
    assert named, (error, refusals)
    if error.message in OUR_WORDS:
        assert len(refusals) == 1, refusals
        assert error.message in named[0]


NUM_PAIRS = 250


def _make_pairs() -> list[Manifest]:
    """Return valid objects with two edits each, of values that are good or bad on their own."""
    chosen = random.Random(7)
    cases = [case for case in (*ACCEPTED, *REFUSED) if case.path.startswith("spec.")]
    pairs = []
    for _ in range(NUM_PAIRS):
        first, second = chosen.sample(cases, 2)
        manifest = build_manifest(first)
        for path, value in (*second.also, (second.path, second.value)):
            manifest = edit_manifest(manifest, path, value)
        pairs.append(manifest)
    return pairs


def test_both_say_the_same_of_two_edits_at_once(client: Client) -> None:
    verdicts = {True: 0, False: 0}
    for manifest in _make_pairs():
        errors = [str(error) for error in validation.validate_manifest(manifest)]
        assert _is_accepted(client, manifest) == (not errors), (manifest, errors)
        verdicts[not errors] += 1
    assert min(verdicts.values()) > 30, verdicts


def _is_accepted(client: Client, manifest: Manifest) -> bool:
    try:
        created = client.create(edit_manifest(manifest, "metadata.namespace", NAMESPACE))
    except ApiException:
        return False
    client.delete(operator_driver.FINE_TUNE_JOB, created["metadata"]["name"], NAMESPACE)
    return True


def _spell(field: str) -> str:
    """Write `nodeSelector[pool]` as the product does: `nodeSelector.pool`."""
    return re.sub(r"\[([^\]0-9][^\]]*)\]", r".\1", field)

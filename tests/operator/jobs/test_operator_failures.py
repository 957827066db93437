"""What a failed run tells: true words, about a run whose spec can't be changed and that nobody tries again."""

import ast
import re
from pathlib import Path

import cluster_objects as objects
import pytest
from cluster_objects import to_prepare, to_train

from finetune_api import exits
from finetune_api.kinds.finetunejob.status import Reason
from finetune_operator.jobs import failures

ROOT = Path(__file__).parents[3]
PROMISES = ("tried again", "retried", "try again", "next attempt")


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_a_remedy_that_a_finished_run_can_follow(reason: Reason) -> None:
    failure = failures.build_failed(reason, "x").failure
    assert failure is not None
    assert failure.remedy.endswith(".")
    assert not any(promise in failure.remedy for promise in PROMISES)
    assert "FineTuneJob" in failure.remedy, "what is finished stays as it is"


@pytest.mark.parametrize(
    ("said", "want"),
    [("Look at the node.", "Look at the node."), ("", failures.REMEDIES[Reason.STORAGE_UNAVAILABLE])],
)
def test_a_failed_run_says_what_its_last_attempt_said(said: str, want: str) -> None:
    failure = failures.fail(failures.build_failure(Reason.STORAGE_UNAVAILABLE, "x", said)).failure
    assert failure is not None
    assert failure.remedy == want


@pytest.mark.parametrize("package", ["trainer/finetune_trainer", "api/finetune_api"])
def test_no_attempt_promises_what_the_operator_decides(package: str) -> None:
    modules = list((ROOT / package).rglob("*.py"))
    texts = [
        node.value
        for path in modules
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.Call)
        for node in ast.walk(function)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    promised = re.compile(r"\b(run|it|job) is tried again|\bis retried\b|next attempt")
    assert [text for text in texts if promised.search(text)] == []
    assert len(texts) > 500


@pytest.mark.parametrize("code", sorted(exits.ExitCode))
def test_no_exit_code_leads_to_a_final_remedy_that_promises_another_try(code: exits.ExitCode) -> None:
    cluster = to_train(spec__runPolicy={"backoffLimit": 0})
    cluster.step(21)
    reason = exits.REASONS_BY_EXIT_CODE.get(code, (Reason.INTERNAL,))[0]
    cluster.end(int(code), 60, objects.build_message("train", 1, code, str(reason), message="x"))
    cluster.step(60)
    remedy = cluster.status.get("failure", {}).get("remedy", "")
    assert not any(promise in remedy for promise in PROMISES)


def test_memory_of_the_train_stage_is_that_of_the_spec() -> None:
    cluster = to_train(spec__runPolicy={"backoffLimit": 0})
    cluster.step(21)
    cluster.end(137, 60, reason="OOMKilled")
    cluster.step(60)
    assert cluster.status["failure"]["reason"] == "OutOfMemory"
    assert "more spec.resources.memory" in cluster.status["failure"]["remedy"]


@pytest.mark.parametrize(
    ("memory", "want", "absent"),
    [
        ("16Gi", "more memory than 4Gi: the chart's value prepare.memory", "spec.resources.memory"),
        ("2Gi", "more spec.resources.memory than 2Gi", "prepare.memory"),
    ],
)
def test_memory_of_the_prepare_stage_is_what_it_really_had(memory: str, want: str, absent: str) -> None:
    cluster = to_prepare(spec__runPolicy={"backoffLimit": 0}, spec__resources={"memory": memory})
    cluster.step(1)
    cluster.end(137, 20, reason="OOMKilled")
    cluster.step(20)
    remedy = cluster.status["failure"]["remedy"]
    assert want in remedy
    assert absent not in remedy

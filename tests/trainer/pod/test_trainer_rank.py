"""The end of a rank: which exception gives which exit code and reason, and what a user gets to read of it."""

from pathlib import Path

import pytest
import torch
from training_runs import build_config

from finetune_api import errors
from finetune_api.exits import REASONS_BY_EXIT_CODE
from finetune_api.run import TerminationMessage
from finetune_trainer.pod import rank, rank_result

CONFIG = build_config("CausalLM", "decoder", {}, {}, uid="1-2")
KNOWN = sorted(errors.FineTuneError.__subclasses__(), key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", KNOWN, ids=lambda kind: kind.__name__)
def test_a_known_error_keeps_its_words_code_and_reason(kind: type[errors.FineTuneError]) -> None:
    message = rank.build_failure(CONFIG, kind("what was found", "what to do"))

    assert message == TerminationMessage(
        stage="train",
        attempt=1,
        exit_code=kind.exit_code,
        reason=kind.reason,
        message="what was found",
        remedy="what to do",
    )
    assert message.reason in REASONS_BY_EXIT_CODE.get(kind.exit_code, ("Internal",))


def test_every_class_of_the_tree_is_in_this_table() -> None:
    assert len(KNOWN) == 10


def test_an_exhausted_gpu_says_what_to_lower() -> None:
    message = rank.build_failure(CONFIG, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"))

    assert (message.exit_code, message.reason) == (79, "CUDAOutOfMemory")
    assert message.message == (
        "the GPU's memory is too small for LoRA with spec.training.maxLength (256) and the micro-batch chosen"
    )


def test_an_unknown_error_is_one_sentence_without_a_traceback_or_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-value")

    message = rank.build_failure(CONFIG, KeyError("key\n  a-secret-value " + "x" * 5000))

    assert (message.exit_code, message.reason) == (1, "Internal")
    assert message.message.startswith("KeyError: ")
    assert "a-secret-value" not in message.message
    assert len(message.message) <= 1024


def test_a_result_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    message = rank.build_failure(CONFIG, errors.Diverged("the loss is nan"))
    path = tmp_path / "0.json"

    rank_result.save_result(message, path)

    assert rank_result.load_result(path) == message
    path.write_text("{")
    assert rank_result.load_result(path) is None


def test_half_of_a_surrogate_pair_in_a_message_costs_no_message(tmp_path: Path) -> None:
    message = rank.build_failure(CONFIG, errors.DataError("role (\ud800) must be known", "correct \udfff"))
    path = tmp_path / "0.json"

    rank_result.save_result(message, path)

    assert rank_result.load_result(path) == message.model_copy(
        update={"message": "role (\\ud800) must be known", "remedy": "correct \\udfff"}
    )

"""What libraries say in the log of a run: warnings are heard, but for those that are left out by name."""

import io
import json
import logging
import warnings
from collections.abc import Iterator

import pytest

from finetune_api.run import JobIdentity
from finetune_trainer.telemetry import logs

LEFT_OUT = [
    "LlamaForSequenceClassification LOAD REPORT from: /scratch/base",
    "MatMul8bitLt: inputs will be cast from torch.float32 to float16 during quantization",
    "The new embeddings will be initialized from a multivariate normal distribution that has old embeddings' mean and"
    " covariance. As described in this article: …",
]
HEARD = [
    "You are loading your model using eetq but no linear modules were found",
    "Token indices sequence length is longer than the specified maximum sequence length for this model",
]


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What a process writes, whose logging is set up as a stage's is."""
    root = logging.getLogger()
    before, level, stream = root.handlers, root.level, io.StringIO()
    logs.set_up_logs(JobIdentity(namespace="n", name="j", uid="u", attempt=1), "train", stream=stream)
    yield stream
    logging.captureWarnings(False)
    root.handlers = before
    root.setLevel(level)


def read(log: io.StringIO) -> list[str]:
    return [json.loads(line)["message"] for line in log.getvalue().splitlines()]


def test_a_warning_is_heard_unless_it_is_left_out_by_name(log: io.StringIO) -> None:
    for text in (*LEFT_OUT, *HEARD):
        logging.getLogger("a_library.of_models").warning(text)
    assert read(log) == HEARD


def test_what_python_warns_of_goes_the_same_way(log: io.StringIO) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("`is_gradient_checkpointing` is deprecated", FutureWarning, stacklevel=1)
        warnings.warn("this adapter learns nothing", UserWarning, stacklevel=1)
        logging.captureWarnings(False)
    assert ["this adapter learns nothing" in text for text in read(log)] == [True]


def test_our_own_words_are_never_left_out(log: io.StringIO) -> None:
    logging.getLogger("finetune_trainer.stages.prepare").warning("a LOAD REPORT of ours")
    assert read(log) == ["a LOAD REPORT of ours"]

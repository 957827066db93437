"""Work of a tokenizer that takes too long ends the stage, names the rows, and keeps the process from nothing."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from finetune_api.errors import ModelError
from finetune_trainer.data import deadlines

SUPPORT = Path(__file__).parents[2] / "support"
SLOW = """
import functools, json, pathlib, sys
import tiny_models, tokenizers
from finetune_api.errors import ModelError
from finetune_trainer.data import deadlines, tokenized_files
from finetune_trainer.data.findings import Findings
from finetune_trainer.data.samples import Part, Sample
from finetune_trainer.tasks.causal_lm import prepare

deadlines.MAX_SECONDS = 1.0
tokenizer = tiny_models.build_decoder_tokenizer()
content = json.loads(tokenizer.backend_tokenizer.to_str())
part = {"type": "Split", "pattern": {"Regex": "x+x+[yz]"}, "behavior": "Isolated", "invert": False}
tokenizer._tokenizer = tokenizers.Tokenizer.from_str(json.dumps(content | {"pre_tokenizer": part}))
tokenize = functools.partial(prepare.tokenize_batch, tokenizer=tokenizer, max_length=64, label_ids={})
samples = [("train", Sample(0, "t.txt line 7", (Part("text", "x" * 3000),)))]
columns = tokenized_files.build_columns(tokenize([Sample(0, "", (Part("text", "x"),))])[0], ("input_ids",), "labels")
try:
    tokenized_files.save_splits(pathlib.Path(sys.argv[1]), samples, tokenize, columns, Findings())
except ModelError as error:
    print(error.message)
    print(error.remedy)
"""


def test_a_pattern_that_searches_without_end_is_the_models_fault_and_lets_the_process_end(tmp_path: Path) -> None:
    # Each search stays below the limit of the library, which would panic; there is one for every character.
    ended = subprocess.run(
        [sys.executable, "-c", SLOW, str(tmp_path)],
        env={"PYTHONPATH": str(SUPPORT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == [
        "spec.model.uri: the tokenizer and its chat template must turn a batch of rows into tokens within 1 seconds;"
        " they don't for the one that begins at t.txt line 7",
        "use the tokenizer files and the chat template that the model's makers publish: a pattern in tokenizer.json may"
        " search without end.",
    ]


def test_what_ends_in_time_is_returned_and_what_fails_is_raised() -> None:
    def fail() -> None:
        raise KeyError("x")

    assert deadlines.wait(deadlines.start(lambda: 3), "here") == 3
    with pytest.raises(KeyError):
        deadlines.wait(deadlines.start(fail), "here")


def test_so_many_run_at_the_same_time_as_there_are_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    turn, release = threading.Semaphore(1), threading.Event()
    first = deadlines.start(release.wait, turn)
    second = deadlines.start(lambda: "done", turn)
    monkeypatch.setattr(deadlines, "MAX_SECONDS", 0.05)
    with pytest.raises(ModelError, match="begins at line 2"):
        deadlines.wait(second, "line 2")
    monkeypatch.undo()
    release.set()
    assert (deadlines.wait(first, "line 1"), deadlines.wait(second, "line 2")) == (True, "done")

"""The table of bad inputs that reach a cluster: what lies in S3, the edit of a good job, and how the run must end.

Each row becomes one FineTuneJob on a real node. `want_message` lists what the message must name: file, line or field.
"""

import csv
import gzip
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finetune_api.kinds.finetunejob.status import Reason

Files = dict[str, bytes]
BUCKET = "datasets"


def make_rows(count: int = 60) -> list[dict[str, str]]:
    """Return short labelled sentences, half of them positive."""
    endings = ("a joy from start to end", "dull and far too long")
    return [
        {"sentence": f"film {index} is {endings[index % 2]}", "label": ("positive", "negative")[index % 2]}
        for index in range(count)
    ]


def write_jsonl(rows: list[dict[str, str]]) -> bytes:
    """Return the rows as JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _broken_line() -> bytes:
    lines = write_jsonl(make_rows()).splitlines(keepends=True)
    lines[16] = b'{"sentence": "the end is missing", "label": \n'
    return b"".join(lines)


def _invalid_utf8() -> bytes:
    lines = write_jsonl(make_rows()).splitlines(keepends=True)
    lines[4] = lines[4].replace(b"film", b"f\xff\xfelm")
    return b"".join(lines)


def _one_huge_row() -> bytes:
    lines = write_jsonl(make_rows()).splitlines(keepends=True)
    lines[2] = write_jsonl([{"sentence": "x" * 1_048_576, "label": "positive"}])
    return b"".join(lines)


def _csv_with_newlines_and_an_empty_label() -> bytes:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, ["sentence", "label"])
    writer.writeheader()
    for index, row in enumerate(make_rows()):
        row["sentence"] += "\nand a second line"
        writer.writerow(row if index != 9 else row | {"label": ""})
    return stream.getvalue().encode()


def _without_label() -> bytes:
    return write_jsonl([{"sentence": row["sentence"]} for row in make_rows()])


def _unseen_label() -> bytes:
    return write_jsonl([*make_rows(10), {"sentence": "so-so", "label": "positiv"}])


def _one_class() -> bytes:
    return write_jsonl([row | {"label": "positive"} for row in make_rows()])


@dataclass(frozen=True)
class BadInput:
    """One bad input.

    Attributes:
        name: of the FineTuneJob.
        files: key below the case's own prefix → content, beside a good train.jsonl.
        edits: dotted path of the job → value; `{prefix}` stands for the case's prefix in S3.
        want_reason: of the failure, or of the condition Stalled where the run only stalls.
        stalls: the run waits for somebody instead of failing.
        is_slow: it trains, or tries again for a minute.
        want_exit_code: of the trainer.
    """

    name: str
    want_reason: Reason
    want_message: tuple[str, ...]
    files: Callable[[], Files] = dict
    edits: dict[str, Any] = field(default_factory=dict)
    stalls: bool = False
    is_slow: bool = False
    want_exit_code: int | None = None


TRAIN = "spec.data.0.train.uri"

BAD_INPUTS = (
    BadInput("diverges", Reason.DIVERGED, ("step",), is_slow=True, edits={"spec.method": {"kind": "Full"}, "spec.training.learningRate": "1", "spec.training.epochs": "20", "spec.training.scheduler": "constant"}, want_exit_code=80),
    BadInput("missing-bucket", Reason.REFERENCE_NOT_FOUND, ("s3://no-such-bucket/a.jsonl",), edits={TRAIN: "s3://no-such-bucket/a.jsonl"}, want_exit_code=66),
    BadInput("missing-key", Reason.REFERENCE_NOT_FOUND, ("missing.jsonl",), edits={TRAIN: "{prefix}/missing.jsonl"}, want_exit_code=66),
    BadInput("wrong-credentials", Reason.ACCESS_DENIED, ("s3://",), edits={"spec.storage.secretName": "wrong-credentials"}, want_exit_code=77),
    BadInput("read-only-output", Reason.ACCESS_DENIED, ("s3://runs/",), edits={"spec.storage.secretName": "read-only-credentials"}, want_exit_code=77),
    BadInput("endpoint-refuses", Reason.STORAGE_UNAVAILABLE, ("9999",), is_slow=True, edits={"spec.storage.endpointURL": "http://{s3_host}:9999", "spec.runPolicy.backoffLimit": 0}, want_exit_code=69),
    BadInput("empty-file", Reason.DATA_ERROR, ("empty.jsonl",), lambda: {"empty.jsonl": b""}, {TRAIN: "{prefix}/empty.jsonl"}, want_exit_code=65),
    BadInput("broken-json", Reason.DATA_ERROR, ("broken.jsonl", "line 17"), lambda: {"broken.jsonl": _broken_line()}, {TRAIN: "{prefix}/broken.jsonl"}, want_exit_code=65),
    BadInput("missing-column", Reason.DATA_ERROR, ("label", "unlabelled.jsonl"), lambda: {"unlabelled.jsonl": _without_label()}, {TRAIN: "{prefix}/unlabelled.jsonl"}, want_exit_code=65),
    BadInput("unseen-label", Reason.DATA_ERROR, ("validation.jsonl", "positiv", "positive"), lambda: {"validation.jsonl": _unseen_label()}, {"spec.data.0.validation": {"uri": "{prefix}/validation.jsonl"}}, want_exit_code=65),
    BadInput("one-class", Reason.DATA_ERROR, ("positive",), lambda: {"one.jsonl": _one_class()}, {TRAIN: "{prefix}/one.jsonl"}, want_exit_code=65),
    BadInput("huge-row", Reason.DATA_ERROR, ("huge.jsonl", "line 3"), lambda: {"huge.jsonl": _one_huge_row()}, {TRAIN: "{prefix}/huge.jsonl"}, want_exit_code=65),
    BadInput("invalid-utf8", Reason.DATA_ERROR, ("latin.jsonl", "line 5"), lambda: {"latin.jsonl": _invalid_utf8()}, {TRAIN: "{prefix}/latin.jsonl"}, want_exit_code=65),
    BadInput("csv-newlines", Reason.DATA_ERROR, ("quoted.csv", "line 20", "label"), lambda: {"quoted.csv": _csv_with_newlines_and_an_empty_label()}, {TRAIN: "{prefix}/quoted.csv"}, want_exit_code=65),
    BadInput("short-gzip", Reason.DATA_ERROR, ("short.jsonl.gz",), lambda: {"short.jsonl.gz": gzip.compress(write_jsonl(make_rows(2000)))[:-200]}, {TRAIN: "{prefix}/short.jsonl.gz"}, want_exit_code=65),
    BadInput("pickled-model", Reason.MODEL_ERROR, ("pytorch_model.bin",), lambda: {"pickled/config.json": b'{"model_type": "bert"}', "pickled/pytorch_model.bin": b"\x80\x02."}, {"spec.model.uri": "{prefix}/pickled/"}, want_exit_code=65),
    BadInput("no-tokenizer", Reason.MODEL_ERROR, ("tokenizer.json",), edits={"spec.model.uri": "s3://models/no-tokenizer/"}, want_exit_code=65),
    BadInput("encoder-for-causal", Reason.MODEL_ERROR, ("CausalLM",), edits={"spec.task": "CausalLM", "spec.data.0.columns": {"text": "sentence"}}, want_exit_code=65),
    BadInput("short-gguf", Reason.MODEL_ERROR, ("short.gguf",), edits={"spec.task": "CausalLM", "spec.data.0.columns": {"text": "sentence"}, "spec.model.uri": "s3://models/short.gguf"}, want_exit_code=65),
    BadInput("lora-targets", Reason.MODEL_ERROR, ("spec.method.lora.targetModules", "qproj"), edits={"spec.method.lora": {"targetModules": ["qproj"]}}, want_exit_code=65),
    BadInput("max-length", Reason.CONFIG_ERROR, ("spec.training.maxLength", "4096", "512"), edits={"spec.training.maxLength": 4096}, want_exit_code=78),
    BadInput("empty-split", Reason.DATA_ERROR, ("spec.split.validation", "0 rows"), lambda: {"two.jsonl": write_jsonl(make_rows(4))}, {TRAIN: "{prefix}/two.jsonl", "spec.split.validation": "0.01"}, want_exit_code=65),
    BadInput("no-secret", Reason.REFERENCE_NOT_FOUND, ("no-such-secret",), edits={"spec.storage.secretName": "no-such-secret"}, stalls=True),
    BadInput("no-image", Reason.IMAGE_PULL_FAILED, ("no-such-image",), edits={"spec.trainer.image": "{registry}/no-such-image:1"}, stalls=True),
    BadInput("no-gpu", Reason.UNSCHEDULABLE, ("nvidia.com/gpu",), edits={"spec.resources.gpus": 1}, stalls=True),
)  # fmt: skip
"""Rows that end in the prepare stage cost seconds; `diverges` and `no-gpu` go on to the train stage."""


def list_models(minilm: dict[str, Path], gguf: Path) -> Files:
    """Return the damaged models, made from the real ones, by key of the bucket `models`."""
    folder = {key.rsplit("/", 1)[-1]: path for key, path in minilm.items()}
    without_tokenizer = ("config.json", "model.safetensors")
    return {f"no-tokenizer/{name}": folder[name].read_bytes() for name in without_tokenizer} | {
        "short.gguf": gguf.read_bytes()[:50_000_000]
    }

"""How each bad input ends the prepare stage before a GPU is held: class, what the message names, no prepared.json."""

# ruff: noqa: ARG005 - a case per line keeps the table readable; not every edit needs the stage

import gzip
import json
from collections.abc import Callable
from typing import Any

import pytest
from prepare_bench import make_reviews, write_jsonl
from prepare_stage import PREPARED, PrepareStage, build_data

from finetune_api.errors import (
    ConfigError,
    DataError,
    FineTuneError,
    ModelError,
    ReferenceNotFound,
)
from finetune_trainer.data import sources

Edit = dict[str, Any]


def put_bad(
    key: str, content: bytes | str | list[dict[str, Any]], split: str = "train"
) -> Callable[[PrepareStage], Edit]:
    def edit(stage: PrepareStage) -> Edit:
        stage.bench.put(key, content)
        return {"data": build_data(stage.bench, **({"train": "train.jsonl"} | {split: key}))}

    return edit


def break_line(number: int, line: str) -> str:
    lines = write_jsonl(make_reviews(40)).splitlines(keepends=True)
    lines[number - 1] = line + "\n"
    return "".join(lines)


def named(**columns: str) -> Callable[[PrepareStage], Edit]:
    return lambda stage: {"data": [build_data(stage.bench, train="train.jsonl")[0] | {"columns": columns}]}


def model_of(*names: str) -> Callable[[PrepareStage], Edit]:
    def edit(stage: PrepareStage) -> Edit:
        for name in names:
            stage.bench.put(f"bad-model/{name}", b"x")
        return {"model": {"uri": stage.bench.uri("bad-model/")}}

    return edit


def put_late_input(stage: PrepareStage) -> Edit:
    rows = [{"instruction": f"name the number {index}", "output": str(index)} for index in range(120)]
    rows[110] |= {"input": "as a word"}
    stage.bench.put("late.jsonl", rows)
    decoder = stage.bench.put_model(stage.models["decoder"])
    data = build_data(stage.bench, train="late.jsonl")
    return {"task": "InstructionTuning", "model": {"uri": decoder}, "data": data}


def put_cut_gguf(stage: PrepareStage) -> Edit:
    return {"task": "CausalLM", "model": {"uri": stage.bench.put("short.gguf", b"GGUF\x03\0\0\0")}}


BAD_INPUTS = [
    pytest.param(
        lambda stage: {"data": [{"name": "d", "train": {"uri": "s3://no-such-bucket/a.jsonl"}}]},
        ReferenceNotFound,
        ["spec.data[0].train.uri", "s3://no-such-bucket/a.jsonl"],
        id="missing bucket",
    ),
    pytest.param(
        lambda stage: {"data": build_data(stage.bench, train="train.jsonl", test="missing.jsonl")},
        ReferenceNotFound,
        ["spec.data[0].test.uri", "missing.jsonl"],
        id="missing key",
    ),
    pytest.param(
        lambda stage: {"model": {"uri": stage.bench.uri("no-model/")}},
        ReferenceNotFound,
        ["spec.model.uri", "no-model/"],
        id="missing model",
    ),
    pytest.param(put_bad("empty.jsonl", b""), DataError, ["empty.jsonl must have at least one row"], id="empty file"),
    pytest.param(
        put_bad("t.jsonl", break_line(17, '{"text": "x", "label": ')),
        DataError,
        ["t.jsonl line 17: must be one JSON object"],
        id="broken JSON in line 17",
    ),
    pytest.param(
        named(text="sentense"),
        DataError,
        ["spec.data[0].columns.text (sentense) must be a column of train.jsonl, which has text, label"],
        id="missing column",
    ),
    pytest.param(
        put_bad("t.jsonl", [{"text": row["text"]} for row in make_reviews(9)]),
        DataError,
        ["t.jsonl must have columns for text, label; it has text"],
        id="no label column",
    ),
    pytest.param(
        put_bad("v.jsonl", [{"text": "so-so", "label": "positiv"}], "validation"),
        DataError,
        ["v.jsonl line 1: label (positiv)", "did you mean positive?"],
        id="unseen label in validation",
    ),
    pytest.param(
        put_bad("v.jsonl", [{"words": "x", "label": "positive"}], "validation"),
        DataError,
        ["v.jsonl must have train.jsonl's columns text, label; it has words, label"],
        id="validation without the column",
    ),
    pytest.param(
        put_bad("t.jsonl", [row | {"label": "positive"} for row in make_reviews(9)]),
        DataError,
        ["t.jsonl must have at least two different labels; every row has positive"],
        id="one class only",
    ),
    pytest.param(
        put_bad("t.jsonl", break_line(3, json.dumps({"text": "x" * 2**20, "label": "positive"}))),
        DataError,
        ["t.jsonl line 3: must have at most 1048576 bytes"],
        id="row of 1 MB",
    ),
    pytest.param(
        put_bad("t.jsonl", break_line(5, "?").encode().replace(b"?", b'{"text": "caf\xe9"}')),
        DataError,
        ["t.jsonl line 5: must be UTF-8"],
        id="invalid UTF-8",
    ),
    pytest.param(
        put_bad("t.csv", 'text,label\n"a\nb",x\n"c\nd",\n'),
        DataError,
        ["t.csv line 4: label must not be empty"],
        id="empty field below quoted newlines",
    ),
    pytest.param(
        put_bad("t.jsonl.gz", gzip.compress(write_jsonl(make_reviews(500)).encode())[:-20]),
        DataError,
        ["t.jsonl.gz: Truncated compressed stream"],
        id="gzip ending early",
    ),
    pytest.param(
        put_bad("t.doc", b"x"),
        DataError,
        ["spec.data[0].train.uri", "must hold files that end with .jsonl", "t.doc"],
        id="unknown format",
    ),
    pytest.param(
        put_bad("test.jsonl", make_reviews(120)[:40], "test"),
        DataError,
        ["spec.data[0].test must hold rows that are not trained on", "of 40 test rows"],
        id="the test rows are training rows",
    ),
    pytest.param(
        model_of("config.json", "pytorch_model.bin"),
        ModelError,
        ["spec.model.uri", "pytorch_model.bin"],
        id="pickled model",
    ),
    pytest.param(
        model_of("config.json", "model.safetensors"),
        ModelError,
        ["spec.model.uri", "tokenizer.json"],
        id="folder without tokenizer",
    ),
    pytest.param(
        lambda stage: {"task": "CausalLM"},
        ModelError,
        ["must be a model for CausalLM; architecture bert fits SequenceClassification"],
        id="encoder asked for CausalLM",
    ),
    pytest.param(
        put_late_input,
        DataError,
        ["late.jsonl line 111", "input must be a column of the first 100 rows too, to be read as input"],
        id="a column that comes late",
    ),
    pytest.param(put_cut_gguf, ModelError, ["short.gguf", "cut short"], id="GGUF cut short"),
    pytest.param(
        lambda stage: {"method": {"lora": {"targetModules": ["qproj"]}}},
        ModelError,
        ["spec.method.lora.targetModules (qproj)", "dense, key, query, value"],
        id="LoRA targets that match nothing",
    ),
    pytest.param(
        lambda stage: {"training": {"maxLength": 4096}},
        ConfigError,
        ["spec.training.maxLength (4096) must be at most 128"],
        id="maxLength over the model's",
    ),
    pytest.param(
        lambda stage: {"model": {"uri": stage.bench.put_model(stage.models["encoder"]), "sha256": "0" * 64}},
        ModelError,
        ["spec.model.sha256"],
        id="another model than was pinned",
    ),
    pytest.param(
        put_bad("t.jsonl", make_reviews(4)),
        DataError,
        ["spec.split.validation (0.1)", "validation would get 0 rows"],
        id="split that leaves no row",
    ),
    pytest.param(
        lambda stage: {"output": {"uri": stage.bench.uri("out"), "merge": True}, "resources": {"nodes": 2}},
        ConfigError,
        ["spec.output.merge (true)", "spec.resources.nodes (2)"],
        id="what is not built yet, all of it named",
    ),
    pytest.param(
        lambda stage: {"training": {"batchSize": 2}, "resources": {"gpus": 3}},
        ConfigError,
        ["spec.training.batchSize (2) must be at least resources.gpus: each GPU takes samples"],
        id="a batch too small to be shared",
    ),
    pytest.param(
        lambda stage: {"split": {"validation": "0"}, "training": {"maxLength": 32, "earlyStopping": {"patience": 2}}},
        ConfigError,
        ["spec.training.earlyStopping (given) must be absent where split.validation is 0"],
        id="early stopping without validation rows",
    ),
]


@pytest.mark.parametrize(("edit", "want_class", "want"), BAD_INPUTS)
def test_a_bad_input_ends_the_stage(
    stage: PrepareStage, edit: Callable[[PrepareStage], Edit], want_class: type[FineTuneError], want: list[str]
) -> None:
    error = stage.fail(stage.build(**edit(stage)), want_class)
    assert [text for text in want if text not in error.message] == [], error.message


def test_an_answer_cut_off_by_the_length_is_found_here(stage: PrepareStage) -> None:
    rows = [{"prompt": "define house", "completion": "a building"}] * 2 + [
        {"prompt": "define " * 40, "completion": "x"}
    ]
    stage.bench.put("train.jsonl", rows)
    config = stage.build("decoder", task="InstructionTuning", training={"maxLength": 24}, split={"validation": "0"})
    error = stage.fail(config, DataError)
    assert error.message.startswith("train.jsonl line 3: must keep a token to learn within spec.training.maxLength")


def test_all_bad_rows_of_all_files_are_listed_in_the_report(stage: PrepareStage) -> None:
    stage.bench.put("train.jsonl", break_line(2, "nonsense"))
    stage.bench.put("v.jsonl", [{"text": "", "label": "positive"}, {"text": "x", "label": None}])
    error = stage.fail(stage.build(data=build_data(stage.bench, train="train.jsonl", validation="v.jsonl")), DataError)
    places = ["train.jsonl line 2", "v.jsonl line 1", "v.jsonl line 2"]
    assert [place for place in places if place not in error.message] == []
    report = json.loads(stage.bench.get(f"{PREPARED}report.json"))
    assert report["totalErrors"] == 3
    assert [text.partition(":")[0] for text in report["errors"]] == places
    assert stage.bench.uri(f"{PREPARED}report.json") in error.remedy


def test_the_rows_of_a_split_are_bounded_over_all_its_files(
    stage: PrepareStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "MAX_ROWS", 100)
    stage.bench.put("parts/a.jsonl", make_reviews(60))
    stage.bench.put("parts/b.jsonl", make_reviews(120)[60:])
    error = stage.fail(stage.build(data=build_data(stage.bench, train="parts/")), DataError)
    assert error.message == "b.jsonl line 41: a split must have at most 100 rows, over all its files"

"""The prepare stage on a real S3 server: what it writes, and how each bad input ends it before a GPU is held."""

# ruff: noqa: ARG005, E501 - a case per line keeps the table readable; not every edit needs the stage
import csv
import gzip
import hashlib
import io
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import tiny_models
import transformers
from fault_proxy import Fault, FaultProxy
from prepare_bench import PrepareBench, make_reviews, write_jsonl

from finetune_api.artifacts import PreparedManifest, compute_digest
from finetune_api.errors import (
    AccessDenied,
    ConfigError,
    DataError,
    FineTuneError,
    Interrupted,
    ModelError,
    ReferenceNotFound,
    StorageUnavailable,
)
from finetune_api.run import RunConfig, TerminationMessage, build_termination_text
from finetune_trainer import prepare, reading, stopping

Edit = dict[str, Any]
PREPARED = "out/runs/uid-1/prepared/1/"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {
        "encoder": tiny_models.build_encoder(tmp_path_factory.mktemp("encoder")),
        "decoder": tiny_models.build_decoder(tmp_path_factory.mktemp("decoder")),
    }


class Stage:
    """A prepare stage whose inputs are good until a test changes them."""

    def __init__(self, bench: PrepareBench, models: dict[str, Path], scratch: Path) -> None:
        self.bench, self.models, self.scratch = bench, models, scratch

    def build(self, base: str = "encoder", **changes: Any) -> RunConfig:
        """Upload a model and return the configuration of a classification, or of what `changes` make of it."""
        spec = {
            "task": "SequenceClassification",
            "model": {"uri": self.bench.put_model(self.models[base])},
            "data": [{"name": "reviews", "train": {"uri": self.bench.uri("train.jsonl")}}],
            "training": {"maxLength": 32},
        }
        if "train.jsonl" not in self.bench.list_keys():
            self.bench.put("train.jsonl", make_reviews(120))
        return self.bench.build_config(**(spec | changes))

    def run(self, config: RunConfig) -> TerminationMessage:
        return prepare.run(config, self.scratch)

    def fail(self, config: RunConfig, want: type[FineTuneError]) -> FineTuneError:
        """Run, and return the error that ended it; nothing that counts as prepared may lie in the store."""
        with pytest.raises(FineTuneError) as caught:
            self.run(config)
        assert isinstance(caught.value, want), repr(caught.value)
        assert caught.value.message
        assert caught.value.remedy
        assert f"{PREPARED}prepared.json" not in self.bench.list_keys()
        return caught.value


@pytest.fixture
def stage(bench: PrepareBench, models: dict[str, Path], tmp_path: Path) -> Stage:
    return Stage(bench, models, tmp_path / "scratch")


def data(bench: PrepareBench, **files: str) -> list[dict[str, Any]]:
    return [{"name": "d", **{split: {"uri": bench.uri(key)} for split, key in files.items()}}]


# What a good run writes.


def test_a_classification_is_prepared_and_every_file_is_listed(stage: Stage) -> None:
    bench = stage.bench
    message = stage.run(stage.build())
    names = ["prepared.json", "report.json", "test.parquet", "train.parquet", "validation.parquet"]
    assert bench.list_keys("out/") == [PREPARED + name for name in names]
    content = bench.get(f"{PREPARED}prepared.json")
    manifest = PreparedManifest.model_validate_json(content)
    assert message.prepared_sha256 == hashlib.sha256(content).hexdigest()
    for entry in manifest.files:
        assert hashlib.sha256(bench.get(PREPARED + entry.path)).hexdigest() == entry.sha256
    assert [entry.path for entry in manifest.files] == names[1:]
    assert [item.uri for item in manifest.inputs] == [
        bench.put_model(stage.models["encoder"]),
        bench.uri("train.jsonl"),
    ]
    assert manifest.labels == ["negative", "positive"]
    assert manifest.run_digest == message.run_digest
    assert manifest.data == message.data
    assert manifest.resolved == message.resolved
    # All rows of a step, each as long as the longest: there is room for them.
    splits = json.loads(bench.get(f"{PREPARED}report.json"))["splits"].values()
    longest = max(split["lengths"]["max"] for split in splits if split["rows"])
    assert message.resolved == {
        "packing": "true",
        "microBatchTokens": str(16 * longest),
        "learningRate": "5e-4",
        "epochs": "3",
        "totalSteps": "21",
        "precision": "Float32",
        "bestMetric": "accuracy",
        "seed": "13",
        "columns": "text=text, label=label",
        "format": ".jsonl",
        "labels": "2",
    }
    assert message.data is not None
    assert (message.data.train_rows, message.data.validation_rows, message.data.test_rows) == (108, 12, 0)
    assert message.data.digest == f"sha256:{compute_digest([e for e in manifest.files if e.path.endswith('.parquet')])}"
    assert message.data.report_uri == bench.uri(f"{PREPARED}report.json")
    assert message.warnings == []
    assert len(build_termination_text(message)) < 2048


def test_prepared_rows_point_to_their_source(stage: Stage) -> None:
    stage.run(stage.build())
    rows: dict[int, dict[str, Any]] = {}
    for split in ("train", "validation"):
        table = pyarrow.parquet.read_table(io.BytesIO(stage.bench.get(f"{PREPARED}{split}.parquet")))
        assert table.column_names == ["row", "input_ids", "label"]
        rows |= {row["row"]: row for row in table.to_pylist()}
    tokenizer = transformers.AutoTokenizer.from_pretrained(stage.models["encoder"])
    reviews = make_reviews(120)
    assert sorted(rows) == list(range(120))
    for index, row in rows.items():
        assert row["label"] == ["negative", "positive"].index(reviews[index]["label"])
        assert row["input_ids"] == tokenizer(reviews[index]["text"])["input_ids"]


def test_the_report_says_what_the_data_is(stage: Stage) -> None:
    stage.bench.put(
        "train.jsonl",
        [*make_reviews(110), *make_reviews(10), {"text": "film 3 is dull and far  too long", "label": "positive"}],
    )
    message = stage.run(stage.build(training={"maxLength": 10}, split={"validation": "0", "test": "0.1"}))
    report = json.loads(stage.bench.get(f"{PREPARED}report.json"))
    assert (report["task"], report["columns"]) == ("SequenceClassification", {"text": "text", "label": "label"})
    train = report["splits"]["train"]
    assert train["rows"] + report["splits"]["test"]["rows"] == 121
    assert report["splits"]["validation"]["rows"] == 0
    assert message.data is not None
    assert train["tokens"] == message.data.train_tokens
    assert sum(row["rows"] for row in train["lengths"]["histogram"]) == train["rows"]
    assert train["lengths"]["max"] == 10
    assert train["truncatedRows"] > 0
    assert report["overlaps"] == {"train/test": 0}
    assert train["exactDuplicates"] + report["splits"]["test"]["exactDuplicates"] == 10
    assert train["nearDuplicates"] + report["splits"]["test"]["nearDuplicates"] == 11
    assert train["conflictingLabels"] + report["splits"]["test"]["conflictingLabels"] == 1
    assert report["example"]["stretches"][0]["text"].startswith("[CLS] film")
    assert message.warnings == report["warnings"]
    assert any("longer than spec.training.maxLength" in warning for warning in message.warnings)
    assert any("repeat an earlier one" in warning for warning in message.warnings)


def test_instructions_are_prepared_with_their_mask(stage: Stage) -> None:
    stage.bench.put(
        "train.jsonl", [{"prompt": f"define house {n}", "completion": f"a building {n}"} for n in range(20)]
    )
    message = stage.run(stage.build("decoder", task="InstructionTuning", training={"maxLength": 64}))
    table = pyarrow.parquet.read_table(io.BytesIO(stage.bench.get(f"{PREPARED}train.parquet")))
    assert table.column_names == ["row", "input_ids", "labels"]
    row = table.to_pylist()[0]
    tokenizer = transformers.AutoTokenizer.from_pretrained(stage.models["decoder"])
    assert tokenizer.decode([token for token in row["labels"] if token != -100]) == f"a building {row['row']}<|im_end|>"
    assert message.resolved["stopToken"] == "<|im_end|>"
    assert message.resolved["chatTemplate"].startswith("sha256:")
    report = json.loads(stage.bench.get(f"{PREPARED}report.json"))
    assert [part["learned"] for part in report["example"]["stretches"]] == [False, True, False]


def test_the_same_inputs_give_the_same_digests_whatever_is_not_an_input(stage: Stage) -> None:
    first = stage.run(stage.build())
    again = stage.run(stage.build(resources={"gpus": 0, "memory": "5Gi"}, runPolicy={"backoffLimit": 9}))
    other = stage.run(stage.build(training={"maxLength": 32, "seed": 14}))
    assert (first.run_digest, first.data) == (again.run_digest, again.data)
    assert other.run_digest != first.run_digest
    stage.bench.put("train.jsonl", make_reviews(121))
    assert stage.run(stage.build()).run_digest != first.run_digest


def test_a_folder_of_compressed_files_is_one_source(stage: Stage) -> None:
    stage.bench.put("parts/a.jsonl.gz", gzip.compress(write_jsonl(make_reviews(60)).encode()))
    stage.bench.put("parts/b.jsonl.gz", gzip.compress(write_jsonl(make_reviews(120)[60:]).encode()))
    stage.bench.put("parts/_SUCCESS", b"")
    stage.bench.put("parts/notes.pdf", b"x")
    message = stage.run(stage.build(data=data(stage.bench, train="parts/")))
    assert message.data is not None
    assert (message.data.train_rows, message.data.validation_rows) == (108, 12)
    assert message.resolved["format"] == ".jsonl"
    assert message.warnings == [
        f"spec.data[0].train.uri ({stage.bench.uri('parts/')}): 1 files of other formats are left out, such as notes.pdf"
    ]


def test_quoted_newlines_in_csv_are_accepted(stage: Stage) -> None:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerows([("text", "label"), *((row["text"] + "\nsecond line", row["label"]) for row in make_reviews(120))])
    stage.bench.put("t.csv", text.getvalue())
    message = stage.run(stage.build(data=data(stage.bench, train="t.csv")))
    assert message.data is not None
    assert message.data.train_rows == 108


def test_a_few_rows_of_test_in_train_are_a_warning(stage: Stage) -> None:
    stage.bench.put("test.jsonl", make_reviews(130)[117:])
    stage.bench.put("validation.jsonl", make_reviews(140)[130:])
    message = stage.run(
        stage.build(data=data(stage.bench, train="train.jsonl", test="test.jsonl", validation="validation.jsonl"))
    )
    assert message.warnings == [
        "3 of 13 test rows stand in the train rows too, such as test.jsonl line 1, test.jsonl line 2, test.jsonl line 3"
    ]


def test_memory_that_will_not_do_is_a_warning(stage: Stage) -> None:
    message = stage.run(stage.build(resources={"gpus": 0, "memory": "64Mi"}))
    assert message.memory is not None
    assert int(message.resolved["microBatchTokens"]) < 32, "the longest row"
    assert [warning.partition(":")[0] for warning in message.warnings] == [
        "spec.resources.memory (64Mi) may be too small"
    ]


def test_without_validation_rows_it_is_said_that_the_last_weights_are_published(stage: Stage) -> None:
    message = stage.run(stage.build(split={"validation": "0"}))
    assert message.warnings == [
        "spec.split.validation (0): without validation rows the best weights can't be told; the last ones are published"
    ]


# Bad inputs: class, what the message names, and no prepared.json.


def put_bad(key: str, content: bytes | str | list[dict[str, Any]], split: str = "train") -> Callable[[Stage], Edit]:
    def edit(stage: Stage) -> Edit:
        stage.bench.put(key, content)
        return {"data": data(stage.bench, **({"train": "train.jsonl"} | {split: key}))}

    return edit


def break_line(number: int, line: str) -> str:
    lines = write_jsonl(make_reviews(40)).splitlines(keepends=True)
    lines[number - 1] = line + "\n"
    return "".join(lines)


def named(**columns: str) -> Callable[[Stage], Edit]:
    return lambda stage: {"data": [data(stage.bench, train="train.jsonl")[0] | {"columns": columns}]}


def model_of(*names: str) -> Callable[[Stage], Edit]:
    def edit(stage: Stage) -> Edit:
        for name in names:
            stage.bench.put(f"bad-model/{name}", b"x")
        return {"model": {"uri": stage.bench.uri("bad-model/")}}

    return edit


def put_cut_gguf(stage: Stage) -> Edit:
    return {"task": "CausalLM", "model": {"uri": stage.bench.put("short.gguf", b"GGUF\x03\0\0\0")}}


BAD_INPUTS = [
    pytest.param(
        lambda stage: {"data": [{"name": "d", "train": {"uri": "s3://no-such-bucket/a.jsonl"}}]},
        ReferenceNotFound,
        ["spec.data[0].train.uri", "s3://no-such-bucket/a.jsonl"],
        id="missing bucket",
    ),
    pytest.param(
        lambda stage: {"data": data(stage.bench, train="train.jsonl", test="missing.jsonl")},
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
        ["spec.data[0].columns.text (text) must be a column of v.jsonl"],
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
        ["t.jsonl.gz after line 0: Truncated compressed stream"],
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
        ["spec.training.batchSize (2) must be at least spec.resources.gpus (3)"],
        id="a batch too small to be shared",
    ),
    pytest.param(
        lambda stage: {"split": {"validation": "0"}, "training": {"maxLength": 32, "earlyStopping": {"patience": 2}}},
        ConfigError,
        ["spec.training.earlyStopping must have validation rows", "spec.split.validation (0) leaves none"],
        id="early stopping without validation rows",
    ),
]


@pytest.mark.parametrize(("edit", "want_class", "want"), BAD_INPUTS)
def test_a_bad_input_ends_the_stage(
    stage: Stage, edit: Callable[[Stage], Edit], want_class: type[FineTuneError], want: list[str]
) -> None:
    error = stage.fail(stage.build(**edit(stage)), want_class)
    assert [text for text in want if text not in error.message] == [], error.message


def test_an_answer_cut_off_by_the_length_is_found_here(stage: Stage) -> None:
    rows = [{"prompt": "define house", "completion": "a building"}] * 2 + [
        {"prompt": "define " * 40, "completion": "x"}
    ]
    stage.bench.put("train.jsonl", rows)
    config = stage.build("decoder", task="InstructionTuning", training={"maxLength": 24}, split={"validation": "0"})
    error = stage.fail(config, DataError)
    assert error.message.startswith("train.jsonl line 3: must keep a token to learn within spec.training.maxLength")


def test_all_bad_rows_of_all_files_are_listed_in_the_report(stage: Stage) -> None:
    stage.bench.put("train.jsonl", break_line(2, "nonsense"))
    stage.bench.put("v.jsonl", [{"text": "", "label": "positive"}, {"text": "x", "label": None}])
    error = stage.fail(stage.build(data=data(stage.bench, train="train.jsonl", validation="v.jsonl")), DataError)
    places = ["train.jsonl line 2", "v.jsonl line 1", "v.jsonl line 2"]
    assert [place for place in places if place not in error.message] == []
    report = json.loads(stage.bench.get(f"{PREPARED}report.json"))
    assert report["totalErrors"] == 3
    assert [text.partition(":")[0] for text in report["errors"]] == places
    assert stage.bench.uri(f"{PREPARED}report.json") in error.remedy


def test_the_rows_of_a_split_are_bounded_over_all_its_files(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_ROWS", 100)
    stage.bench.put("parts/a.jsonl", make_reviews(60))
    stage.bench.put("parts/b.jsonl", make_reviews(120)[60:])
    error = stage.fail(stage.build(data=data(stage.bench, train="parts/")), DataError)
    assert error.message == "b.jsonl line 41: a split must have at most 100 rows, over all its files"


# Access.


def test_every_address_that_cannot_be_used_is_reported_at_once(stage: Stage) -> None:
    config = stage.build(
        model={"uri": stage.bench.uri("no-model/")},
        data=data(stage.bench, train="no-train.jsonl", test="no-test.jsonl"),
    )
    error = stage.fail(config, ReferenceNotFound)
    for path in ("spec.model.uri", "spec.data[0].train.uri", "spec.data[0].test.uri"):
        assert f"{path}: s3://" in error.message


def test_a_read_only_output_ends_with_77(stage: Stage) -> None:
    config = stage.build()
    reader = stage.bench.server.add_identity(
        "prepare-reader", [f"Read:{stage.bench.bucket}", f"List:{stage.bench.bucket}"]
    )
    stage.bench.use_keys(reader.access_key, reader.secret_key)
    error = stage.fail(config, AccessDenied)
    assert error.message.startswith(f"spec.output.uri: {stage.bench.uri('out/runs/uid-1/probe-1')} must be open")


@pytest.mark.parametrize(
    ("fault", "want"),
    [
        pytest.param(Fault("GET", status=403, after=4), "out/runs/uid-1/", id="the listing"),
        pytest.param(Fault("HEAD", status=403, after=2), "out/runs/uid-1/no-object", id="an object that isn't there"),
    ],
)
def test_an_output_that_may_not_be_listed_ends_with_77(
    bench: PrepareBench, fault_proxy: FaultProxy, models: dict[str, Path], tmp_path: Path, *, fault: Fault, want: str
) -> None:
    stage = Stage(bench, models, tmp_path / "scratch")
    config = stage.build()
    fault_proxy.faults.append(fault)
    error = stage.fail(config, AccessDenied)
    assert error.message.startswith(f"spec.output.uri: {bench.uri(want)} must be open")
    assert error.message.endswith(", also to list")


def test_wrong_credentials_end_with_77(stage: Stage) -> None:
    config = stage.build()
    stage.bench.use_keys(stage.bench.server.access_key, "wrong")
    assert stage.fail(config, AccessDenied).exit_code == 77


def test_a_store_that_is_down_ends_with_69_at_once(stage: Stage) -> None:
    storage = stage.bench.storage.model_copy(update={"endpoint_url": "http://127.0.0.1:9"})
    error = stage.fail(stage.build(storage=storage.model_dump(mode="json")), StorageUnavailable)
    assert error.message.startswith("spec.model.uri: ")
    assert "spec.output.uri" not in error.message


def test_a_store_without_conditional_writes_is_refused(
    bench: PrepareBench, fault_proxy: FaultProxy, models: dict[str, Path], tmp_path: Path
) -> None:
    stage = Stage(bench, models, tmp_path / "scratch")
    config = stage.build()
    # The first PUT writes the probe; the second is the conditional one, and this store says yes to it.
    fault_proxy.faults.append(Fault("PUT", status=200, after=1))
    error = stage.fail(config, ConfigError)
    assert error.message.startswith("spec.output.uri: ")
    assert "must lie in a store that honours If-None-Match" in error.message


@pytest.mark.parametrize(
    ("method", "after"),
    [("GET", 0), ("PUT", 0), ("GET", 5), ("PUT", 4)],
    ids=["while probing the inputs", "while probing the output", "while fetching", "while uploading"],
)
def test_a_signal_ends_the_stage_and_nothing_counts_as_prepared(
    bench: PrepareBench,
    fault_proxy: FaultProxy,
    models: dict[str, Path],
    tmp_path: Path,
    *,
    method: str,
    after: int,
) -> None:
    stage = Stage(bench, models, tmp_path / "scratch")
    config = stage.build()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    bench.monkeypatch.setattr(stopping, "_received", [])
    stopping.install_handlers()
    fault_proxy.faults.append(Fault(method, after=after, signal=signal.SIGTERM))
    try:
        error = stage.fail(config, Interrupted)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert error.exit_code == 143
    assert error.message.startswith("SIGTERM interrupted ")


def test_an_architecture_that_is_not_proven_to_pack_is_padded_and_said_so(stage: Stage) -> None:
    message = stage.run(stage.build(model={"uri": stage.bench.put_model(stage.models["decoder"])}))
    assert message.resolved["packing"] == "false"
    assert message.warnings == [
        "spec.training.packing (true) is not proven for SequenceClassification with a model of type llama: rows are"
        " padded, those of like length together"
    ]


def test_a_run_that_asks_for_padding_gets_it_without_a_warning(stage: Stage) -> None:
    message = stage.run(stage.build(training={"packing": False, "maxLength": 64}))
    assert (message.resolved["packing"], message.warnings) == ("false", [])

"""The prepare stage on a real S3 server: what it writes, and what it asks of the store."""

import csv
import gzip
import hashlib
import io
import json
import signal
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import transformers
from fault_proxy import Fault, FaultProxy
from prepare_bench import PrepareBench, make_reviews, write_jsonl
from prepare_stage import PREPARED, PrepareStage, build_data

from finetune_api.artifacts import PreparedManifest, compute_digest
from finetune_api.errors import (
    AccessDenied,
    ConfigError,
    Interrupted,
    ReferenceNotFound,
    StorageUnavailable,
)
from finetune_api.run import build_termination_text
from finetune_trainer import signals

Edit = dict[str, Any]


# What a good run writes.


def test_a_classification_is_prepared_and_every_file_is_listed(stage: PrepareStage) -> None:
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
        "checkpointSize": "240.0Ki",
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


def test_prepared_rows_point_to_their_source(stage: PrepareStage) -> None:
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


def test_the_report_says_what_the_data_is(stage: PrepareStage) -> None:
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
    assert report["example"]["segments"][0]["text"].startswith("[CLS] film")
    assert message.warnings == report["warnings"]
    assert any("longer than spec.training.maxLength" in warning for warning in message.warnings)
    assert any("repeat an earlier one" in warning for warning in message.warnings)


def test_labels_that_a_split_lacks_are_named(stage: PrepareStage) -> None:
    labels = [f"label {number:02}" for number in range(20)]
    rows = [{"text": f"{review['text']}, {label}", "label": label} for review in make_reviews(6) for label in labels]
    one = [{"text": "one more", "label": "label 00"}]
    two = [{"text": f"another, {label}", "label": label} for label in labels if label != "label 07"]
    for split, chosen in (("train", rows), ("validation", one), ("test", two)):
        stage.bench.put(f"{split}.jsonl", chosen)
    files = {split: f"{split}.jsonl" for split in ("train", "validation", "test")}

    message = stage.run(stage.build(data=build_data(stage.bench, **files)))

    shown = ", ".join(f'"{label}"' for label in labels[1:13])
    assert message.warnings == [
        f"no validation row has label {shown} and 7 more; macro figures count such a label only where it is predicted",
        'no test row has label "label 07"; macro figures count such a label only where it is predicted',
    ]


def test_instructions_are_prepared_with_their_mask(stage: PrepareStage) -> None:
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
    assert [part["learned"] for part in report["example"]["segments"]] == [False, True, False]


def test_the_same_inputs_give_the_same_digests_whatever_is_not_an_input(stage: PrepareStage) -> None:
    first = stage.run(stage.build())
    again = stage.run(stage.build(resources={"gpus": 0, "memory": "5Gi"}, runPolicy={"backoffLimit": 9}))
    other = stage.run(stage.build(training={"maxLength": 32, "seed": 14}))
    assert (first.run_digest, first.data) == (again.run_digest, again.data)
    assert other.run_digest != first.run_digest
    stage.bench.put("train.jsonl", make_reviews(121))
    assert stage.run(stage.build()).run_digest != first.run_digest


def test_a_folder_of_compressed_files_is_one_source(stage: PrepareStage) -> None:
    stage.bench.put("parts/a.jsonl.gz", gzip.compress(write_jsonl(make_reviews(60)).encode()))
    stage.bench.put("parts/b.jsonl.gz", gzip.compress(write_jsonl(make_reviews(120)[60:]).encode()))
    stage.bench.put("parts/_SUCCESS", b"")
    stage.bench.put("parts/notes.pdf", b"x")
    message = stage.run(stage.build(data=build_data(stage.bench, train="parts/")))
    assert message.data is not None
    assert (message.data.train_rows, message.data.validation_rows) == (108, 12)
    assert message.resolved["format"] == ".jsonl"
    assert message.warnings == [
        f"spec.data[0].train.uri ({stage.bench.uri('parts/')}): 1 files of other formats are left out,"
        " such as notes.pdf"
    ]


def test_quoted_newlines_in_csv_are_accepted(stage: PrepareStage) -> None:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerows([("text", "label"), *((row["text"] + "\nsecond line", row["label"]) for row in make_reviews(120))])
    stage.bench.put("t.csv", text.getvalue())
    message = stage.run(stage.build(data=build_data(stage.bench, train="t.csv")))
    assert message.data is not None
    assert message.data.train_rows == 108


def test_a_few_rows_of_test_in_train_are_a_warning(stage: PrepareStage) -> None:
    stage.bench.put("test.jsonl", make_reviews(130)[117:])
    stage.bench.put("validation.jsonl", make_reviews(140)[130:])
    message = stage.run(
        stage.build(data=build_data(stage.bench, train="train.jsonl", test="test.jsonl", validation="validation.jsonl"))
    )
    assert message.warnings == [
        "3 of 13 test rows stand in the train rows too, such as test.jsonl line 1, test.jsonl line 2, test.jsonl line 3"
    ]


def test_memory_that_will_not_do_is_a_warning(stage: PrepareStage) -> None:
    message = stage.run(stage.build(resources={"gpus": 0, "memory": "512Mi"}))
    assert message.memory is not None
    assert int(message.resolved["microBatchTokens"]) < 32, "the longest row"
    assert [warning.partition(":")[0] for warning in message.warnings] == [
        "spec.resources.memory (512Mi) may be too small"
    ]


def test_without_validation_rows_it_is_said_that_the_last_weights_are_published(stage: PrepareStage) -> None:
    message = stage.run(stage.build(split={"validation": "0"}))
    assert message.warnings == [
        "spec.split.validation (0): without validation rows the best weights can't be told; the last ones are published"
    ]


def test_an_architecture_that_is_not_proven_to_pack_is_padded_and_said_so(stage: PrepareStage) -> None:
    message = stage.run(stage.build(model={"uri": stage.bench.put_model(stage.models["decoder"])}))
    assert message.resolved["packing"] == "false"
    assert message.warnings == [
        "spec.training.packing (true) is not proven for SequenceClassification with a model of type llama: rows are"
        " padded, those of like length together"
    ]


def test_a_run_that_asks_for_padding_gets_it_without_a_warning(stage: PrepareStage) -> None:
    message = stage.run(stage.build(training={"packing": False, "maxLength": 64}))
    assert (message.resolved["packing"], message.warnings) == ("false", [])


# Access.


def test_every_address_that_cannot_be_used_is_reported_at_once(stage: PrepareStage) -> None:
    config = stage.build(
        model={"uri": stage.bench.uri("no-model/")},
        data=build_data(stage.bench, train="no-train.jsonl", test="no-test.jsonl"),
    )
    error = stage.fail(config, ReferenceNotFound)
    for path in ("spec.model.uri", "spec.data[0].train.uri", "spec.data[0].test.uri"):
        assert f"{path}: s3://" in error.message


def test_a_read_only_output_ends_with_77(stage: PrepareStage) -> None:
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
    stage = PrepareStage(bench, models, tmp_path / "scratch")
    config = stage.build()
    fault_proxy.faults.append(fault)
    error = stage.fail(config, AccessDenied)
    assert error.message.startswith(f"spec.output.uri: {bench.uri(want)} must be open")
    assert error.message.endswith(", also to list")


def test_wrong_credentials_end_with_77(stage: PrepareStage) -> None:
    config = stage.build()
    stage.bench.use_keys(stage.bench.server.access_key, "wrong")
    assert stage.fail(config, AccessDenied).exit_code == 77


def test_a_store_that_is_down_ends_with_69_at_once(stage: PrepareStage) -> None:
    storage = stage.bench.storage.model_copy(update={"endpoint_url": "http://127.0.0.1:9"})
    error = stage.fail(stage.build(storage=storage.model_dump(mode="json")), StorageUnavailable)
    assert error.message.startswith("spec.model.uri: ")
    assert "spec.output.uri" not in error.message


def test_a_store_without_conditional_writes_is_refused(
    bench: PrepareBench, fault_proxy: FaultProxy, models: dict[str, Path], tmp_path: Path
) -> None:
    stage = PrepareStage(bench, models, tmp_path / "scratch")
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
    stage = PrepareStage(bench, models, tmp_path / "scratch")
    config = stage.build()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    bench.monkeypatch.setattr(signals, "_received", [])
    signals.install_handlers()
    fault_proxy.faults.append(Fault(method, after=after, signal=signal.SIGTERM))
    try:
        error = stage.fail(config, Interrupted)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert error.exit_code == 143
    assert error.message.startswith("SIGTERM interrupted ")

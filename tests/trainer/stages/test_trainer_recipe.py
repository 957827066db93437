"""The train stage on real S3, real models and a real launcher: what it publishes, and what it leaves alone."""

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import training_runs
import transformers
from fault_proxy import Fault, start_fault_proxy
from training_runs import RunBench, load_json, method

from finetune_api.artifacts import CurrentRun
from finetune_api.errors import ConfigError, DataError, Diverged, GPUFault, Interrupted
from finetune_api.run import POD_UID_VARIABLE
from finetune_trainer import signals
from finetune_trainer.publishing import commit
from finetune_trainer.stages import train
from finetune_trainer.storage import open_store
from finetune_trainer.training import run

# Loading an adapter as a user does, peft asks transformers for a property by its old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

CLASSIFICATION = "SequenceClassification"


@pytest.fixture(scope="module")
def bench(s3_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunBench]:
    with training_runs.open_bench(s3_server, tmp_path_factory.mktemp("models")) as bench:
        yield bench


@pytest.mark.parametrize("pad", [7, -1, None], ids=["another token", "below zero", "none"])
def test_a_classifier_reads_padded_rows_as_it_reads_them_alone(
    bench: RunBench, tmp_path: Path, pad: int | None
) -> None:
    kind = f"decoder-padded-with-{pad}"
    path = tiny_models.build_decoder(bench.folder / kind) / "config.json"
    path.write_text(json.dumps(load_json(path) | {"pad_token_id": pad}))
    config = bench.prepare(
        CLASSIFICATION, kind, spec={"method": method("HeadOnly")}, rows={"train": 8, "validation": 0, "test": 8}
    )

    train.run(config, tmp_path / "scratch")

    report = load_json(bench.fetch_attempt(config, tmp_path / "published") / "evaluation.json")
    alone = [sample["loss"] for sample in report["samples"]]
    assert report["tuned"]["loss"] == pytest.approx(sum(alone) / len(alone), rel=1e-4)


def test_a_run_leaves_exactly_these_files(bench: RunBench, tmp_path: Path) -> None:
    config = bench.prepare(CLASSIFICATION, "encoder", spec={"method": method("LoRA")})

    train.run(config, tmp_path / "scratch")

    model = [
        f"runs/UID/attempts/1/local/model/{name}"
        for name in ("README.md", "adapter_config.json", "adapter_model.safetensors", "config.json", "tokenizer.json")
    ]
    assert bench.list_keys(config) == [
        "current.json",
        "runs/UID/attempts/1/local/evaluation.json",
        "runs/UID/attempts/1/local/metrics.csv",
        *model,
        "runs/UID/attempts/1/local/model/tokenizer_config.json",
        "runs/UID/manifest.json",
    ]


def test_the_train_stage_tokenizes_nothing(bench: RunBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the prepare stage has done this")

    for name in ("__call__", "encode", "apply_chat_template", "_encode_plus"):
        monkeypatch.setattr(transformers.PreTrainedTokenizerFast, name, refuse)

    end = train.run(bench.prepare("CausalLM", "decoder"), tmp_path / "scratch")

    assert (end.exit_code, end.reason) == (0, "Completed")


def test_a_model_learns_the_rule_in_its_rows(bench: RunBench, tmp_path: Path) -> None:
    config = bench.prepare(
        CLASSIFICATION,
        "encoder",
        spec={"method": method("LoRA")},
        resolved={"totalSteps": "80", "learningRate": "4e-3"},
        rows={"train": 128, "validation": 16, "test": 32},
    )

    end = train.run(config, tmp_path / "scratch")

    assert end.metrics is not None
    figures = {
        which: {item.name: float(item.value) for item in getattr(end.metrics, which)} for which in ("base", "tuned")
    }
    assert figures["tuned"]["accuracy"] >= 0.95
    assert figures["tuned"]["loss"] < figures["base"]["loss"]


def test_an_attempt_that_finds_the_run_published_reports_it_and_trains_nothing(
    bench: RunBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = bench.prepare("CausalLM", "decoder")
    first = train.run(config, tmp_path / "one")
    bench.client.delete_object(Bucket="runs", Key=f"output/{config.job.uid}/current.json")
    again = config.model_copy(update={"job": config.job.model_copy(update={"attempt": 2})})
    monkeypatch.setattr(run, "train", None)

    second = train.run(again, tmp_path / "two")

    assert (second.exit_code, second.attempt, second.manifest_sha256) == (0, 2, first.manifest_sha256)
    assert (second.metrics, second.artifacts_uri) == (first.metrics, first.artifacts_uri)
    # A pod lost between the manifest and the pointer leaves the pointer to its successor.
    assert "current.json" in bench.list_keys(config)


def test_a_pod_that_comes_too_late_reports_what_is_published_and_leaves_it_alone(
    bench: RunBench, tmp_path: Path
) -> None:
    config = bench.prepare("CausalLM", "decoder")
    first = train.run(config, tmp_path / "one")
    store, layout = open_store(config.spec.storage), commit.build_layout(config)
    (tmp_path / "one" / "attempt" / "metrics.csv").write_text("of the late pod")

    late = commit.publish(store, layout, bench.fetch_manifest(config)[0], tmp_path / "one" / "attempt")

    assert (late.sha256, late.manifest.attempt) == (first.manifest_sha256, 1)
    assert "of the late pod" not in (bench.fetch_attempt(config, tmp_path / "seen") / "metrics.csv").read_text()


def test_a_pod_that_was_thought_dead_says_that_another_pod_of_its_attempt_has_published(
    bench: RunBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = bench.prepare("CausalLM", "decoder")
    monkeypatch.setenv(POD_UID_VARIABLE, "successor")
    first = train.run(config, tmp_path / "one")
    before = bench.list_keys(config)
    monkeypatch.setenv(POD_UID_VARIABLE, "late")
    # It had looked before the other began.
    monkeypatch.setattr(commit, "find_published", lambda *_: None)

    late = train.run(config, tmp_path / "two")

    assert late.message == "another pod, of attempt 1, had published this run already"
    assert (late.manifest_sha256, late.artifacts_uri) == (first.manifest_sha256, first.artifacts_uri)
    assert bench.list_keys(config) == before


def test_a_run_that_takes_the_place_of_another_says_whose(bench: RunBench, tmp_path: Path) -> None:
    config = bench.prepare("CausalLM", "decoder")
    layout = commit.build_layout(config)
    other = {"uid": "u-1", "name": "first", "model_uri": "m", "manifest_uri": "n", "manifest_sha256": "0" * 64}
    current = CurrentRun.model_validate(other).model_dump_json().encode()
    bench.client.put_object(Bucket="runs", Key=layout.current.key, Body=current)
    ended = train.run(config, tmp_path / "one")
    assert ended.warnings == [
        f"{layout.current} named the run of first (u-1) and names this one now; the other's files stay"
    ]


def test_of_two_attempts_that_commit_at_once_the_second_reports_the_first(
    bench: RunBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = bench.prepare("CausalLM", "decoder")
    train.run(config, tmp_path / "one")
    store, layout = open_store(config.spec.storage), commit.build_layout(config)
    manifest = bench.fetch_manifest(config)[0]
    bench.client.delete_object(Bucket="runs", Key=layout.manifest.key)
    upload = store.upload_folder

    def upload_beside_another(*arguments: Any) -> Any:
        monkeypatch.undo()
        commit.publish(store, layout, manifest, tmp_path / "one" / "attempt")
        return upload(*arguments)

    monkeypatch.setattr(store, "upload_folder", upload_beside_another)

    late = commit.publish(store, layout, manifest.model_copy(update={"attempt": 2}), tmp_path / "one" / "attempt")

    assert late.manifest.attempt == 1
    assert late.sha256 == bench.fetch_manifest(config)[1]


DAMAGES = {
    "a file is gone": lambda client, key: client.delete_object(Bucket="runs", Key=key),
    "a file is changed": lambda client, key: client.put_object(Bucket="runs", Key=key, Body=b"{}"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_manifest_that_does_not_verify_is_no_success(bench: RunBench, tmp_path: Path, damage: Any) -> None:
    config = bench.prepare("CausalLM", "decoder")
    train.run(config, tmp_path / "one")
    damage(bench.client, f"output/{config.job.uid}/runs/{config.job.uid}/attempts/1/local/evaluation.json")

    with pytest.raises(DataError, match=r"lists files that are missing or changed: attempts/1/local/evaluation\.json"):
        train.run(config, tmp_path / "two")


def test_rows_that_changed_since_the_prepare_stage_are_refused(bench: RunBench, tmp_path: Path) -> None:
    config = bench.prepare("CausalLM", "decoder")
    key = f"output/{config.job.uid}/runs/{config.job.uid}/prepared/1/train.parquet"
    bench.client.put_object(Bucket="runs", Key=key, Body=b"other rows")

    with pytest.raises(DataError, match=r"missing or changed: train\.parquet"):
        train.run(config, tmp_path)

    assert bench.list_keys(config) == []


def test_a_prepared_json_of_another_digest_is_refused(bench: RunBench, tmp_path: Path) -> None:
    config = bench.prepare("CausalLM", "decoder")
    assert config.prepared is not None
    other = config.model_copy(update={"prepared": config.prepared.model_copy(update={"sha256": "0" * 64})})

    with pytest.raises(DataError, match="must have the sha256 the prepare stage reported"):
        train.run(other, tmp_path)


def test_a_pod_without_its_gpu_blames_the_node(bench: RunBench, tmp_path: Path) -> None:
    config = bench.prepare("CausalLM", "decoder", spec={"resources": {"gpus": 1}})

    with pytest.raises(GPUFault, match=r"spec.resources.gpus \(1\) must be visible in the pod"):
        train.run(config, tmp_path)


def test_a_head_that_is_tied_to_the_embeddings_cannot_be_trained_alone(bench: RunBench, tmp_path: Path) -> None:
    config = bench.prepare("CausalLM", "tied", spec={"method": method("HeadOnly")})

    with pytest.raises(ConfigError, match=r"spec.method.kind \(HeadOnly\) must be LoRA or Full for this model"):
        train.run(config, tmp_path)


def test_a_learning_rate_that_is_far_too_high_is_called_diverged(bench: RunBench, tmp_path: Path) -> None:
    config = bench.prepare(
        "CausalLM",
        "decoder",
        spec={"method": method("Full"), "evaluation": {"every": "End"}},
        resolved={"learningRate": "1", "totalSteps": "40"},
    )

    with pytest.raises(Diverged, match=r"step"):
        train.run(config, tmp_path)

    # Its curve is there for whoever asks why.
    assert bench.list_keys(config) == ["runs/UID/attempts/1/local/metrics.csv"]
    table = (bench.fetch_attempt(config, tmp_path / "left") / "metrics.csv").read_text().splitlines()
    assert table[1].startswith("1,")


def test_a_run_that_stops_improving_ends_early_with_its_best_weights(bench: RunBench, tmp_path: Path) -> None:
    config = bench.prepare(
        CLASSIFICATION,
        "encoder",
        spec={
            "method": method("HeadOnly"),
            "training": {"batchSize": 8, "earlyStopping": {"patience": 2, "minDelta": "0.9"}},
            "evaluation": {"every": "Steps", "everySteps": 3},
        },
        resolved={"totalSteps": "100"},
    )

    end = train.run(config, tmp_path)

    # The first evaluation sets the mark, the next two do not beat it by 0.9.
    assert (end.exit_code, end.reason, end.step) == (0, "EarlyStopped", 9)


def test_without_held_out_rows_there_are_samples_and_no_figures(bench: RunBench, tmp_path: Path) -> None:
    config = bench.prepare("CausalLM", "decoder", rows={"train": 16})

    end = train.run(config, tmp_path / "scratch")

    report = load_json(bench.fetch_attempt(config, tmp_path / "published") / "evaluation.json")
    assert (end.exit_code, report["tuned"], report["split"], report["rows"]) == (0, {}, "train", 0)
    assert len(report["samples"]) == 8


def test_the_table_of_steps_has_one_line_a_step(bench: RunBench, tmp_path: Path) -> None:
    config = bench.prepare("CausalLM", "decoder", spec={"evaluation": {"every": "Steps", "everySteps": 2}})

    train.run(config, tmp_path / "scratch")

    lines = (bench.fetch_attempt(config, tmp_path / "published") / "metrics.csv").read_text().splitlines()
    assert lines[0] == "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy"
    assert [line.split(",")[0] for line in lines[1:]] == ["1", "2", "3", "4"]
    assert [bool(line.split(",")[3]) for line in lines[1:]] == [False, True, False, True]


def test_at_the_end_the_validation_rows_are_scored_too(bench: RunBench, tmp_path: Path) -> None:
    config = bench.prepare(CLASSIFICATION, "encoder", spec={"evaluation": {"every": "End"}})

    train.run(config, tmp_path / "scratch")

    table = (bench.fetch_attempt(config, tmp_path / "published") / "metrics.csv").read_text()
    lines = [line for line in table.splitlines() if line]
    assert [bool(line.split(",")[3]) for line in lines[1:]] == [False, False, False, True]


def test_the_same_seed_gives_the_same_weights(bench: RunBench, tmp_path: Path) -> None:
    runs = [bench.prepare(CLASSIFICATION, "encoder", spec={"method": method("LoRA")}) for _ in range(2)]

    for config in runs:
        train.run(config, tmp_path / config.job.uid)

    entries = [{item.path: item.sha256 for item in bench.fetch_manifest(config)[0].files} for config in runs]
    path = "attempts/1/local/model/adapter_model.safetensors"
    assert entries[0][path] == entries[1][path]


def test_a_pod_trains_and_reports_what_it_committed(bench: RunBench, tmp_path: Path) -> None:
    config = bench.prepare(CLASSIFICATION, "encoder", spec={"method": method("LoRA", "Int8")})

    ended = bench.start(config, tmp_path).wait()

    assert (ended.exit_code, ended.message.reason) == (0, "Completed")
    assert ended.message.manifest_sha256 == bench.fetch_manifest(config)[1]
    assert {line[0] for line in ended.log.splitlines()} == {"{"}, "logs are one JSON object per line"


def test_a_pod_stopped_in_training_ends_with_143_and_publishes_nothing(bench: RunBench, tmp_path: Path) -> None:
    config = bench.prepare("CausalLM", "decoder", resolved={"totalSteps": "1000000"})
    running = bench.start(config, tmp_path)
    running.wait_for_words('"step=')
    running.process.send_signal(signal.SIGTERM)

    ended = running.wait()

    assert (ended.exit_code, ended.message.reason) == (143, "PodDisrupted")
    assert re.fullmatch(
        r"SIGTERM interrupted (training|evaluation) at step \d+; the checkpoint of step \d+ stands",
        ended.message.message,
    )
    keys = bench.list_keys(config)
    assert {"current.json", "runs/UID/manifest.json"}.isdisjoint(keys)
    # The best weights are there where an evaluation chose others than the last.
    assert {key.rpartition("/")[2] for key in keys} - {"best.safetensors"} == {
        "manifest.json",
        "metrics.csv",
        "optimizer.safetensors",
        "random-000.safetensors",
        "state.json",
        "weights.safetensors",
    }


@pytest.mark.parametrize(
    ("method", "after", "doing"),
    [("GET", 3, "the fetching of the inputs"), ("PUT", 1, "publishing")],
    ids=["while fetching", "while uploading"],
)
def test_a_signal_while_files_move_is_noticed_before_the_next_one(
    bench: RunBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, method: str, after: int, doing: str
) -> None:
    monkeypatch.setattr(signals, "_received", [])
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with start_fault_proxy(bench.server.endpoint_url) as proxy:
        spec = {"storage": bench.storage | {"endpointURL": proxy.endpoint_url}}
        config = bench.prepare(CLASSIFICATION, "encoder", spec=spec)
        signals.install_handlers()
        proxy.faults.append(Fault(method, after=after, signal=signal.SIGTERM))
        try:
            with pytest.raises(Interrupted, match=f"SIGTERM interrupted {doing}"):
                train.run(config, tmp_path / "scratch")
        finally:
            signal.signal(signal.SIGTERM, before[0])
            signal.signal(signal.SIGINT, before[1])
    assert "runs/UID/manifest.json" not in bench.list_keys(config)


def test_a_loss_that_is_nan_is_called_diverged_at_its_step(bench: RunBench, tmp_path: Path) -> None:
    folder = bench.get_model_folder("decoder")
    broken = bench.folder / "broken"
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    model.lm_head.weight.data.fill_(float("nan"))
    model.save_pretrained(broken)
    transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(broken)
    config = bench.prepare("CausalLM", "broken", spec={"evaluation": {"every": "End", "compareWithBase": False}})

    with pytest.raises(Diverged) as caught:
        train.run(config, tmp_path)

    assert caught.value.message == "the loss must be a finite number; step 1 gave nan"
    assert (caught.value.exit_code, caught.value.remedy) == (80, "lower spec.training.learningRate")
    assert bench.list_keys(config) == ["runs/UID/attempts/1/local/metrics.csv"]


def test_a_store_that_cannot_be_reached_ends_with_69(bench: RunBench, tmp_path: Path) -> None:
    config = bench.prepare("CausalLM", "decoder")
    storage = config.spec.storage.model_copy(update={"endpoint_url": "http://127.0.0.1:9"})
    lost = config.model_copy(update={"spec": config.spec.model_copy(update={"storage": storage})})

    ended = bench.start(lost, tmp_path, {"AWS_MAX_ATTEMPTS": "1"}).wait()

    assert (ended.exit_code, ended.message.reason) == (69, "StorageUnavailable")
    assert "Traceback" not in ended.message.message

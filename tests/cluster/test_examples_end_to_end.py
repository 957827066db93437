"""Every example as a user applies it: on a real node, from the real images, with the figures its README promises."""

import ast
import json
import math
import re
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from finetune_api import metrics
from finetune_api.artifacts import RunManifest, compute_digest
from finetune_api.kinds.finetunejob.status import ConditionType, FineTuneJobStatus, Metric
from finetune_api.kinds.status_conditions import is_true
from finetune_demo import baseline, runs

# Five trainings on however few cores there are; the deadline below says what they were waiting for.
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]
NAMESPACE = "demo"
EXAMPLES = ("define-nouns", "domain-text", "movie-sentiment", "movie-sentiment-full", "movie-sentiment-nf4")
DEADLINE_SECONDS = 1500.0


@pytest.fixture(scope="module")
def statuses(product: Any) -> Iterator[dict[str, FineTuneJobStatus]]:
    """The five examples applied at once, run to their ends."""
    product.make_namespace(NAMESPACE)
    product.upload_examples(EXAMPLES)
    for name in EXAMPLES:
        runs.apply_run(product.client, yaml.safe_load((ROOT / "examples" / name / "job.yaml").read_text()))
    yield runs.wait_until(product.client, NAMESPACE, EXAMPLES, deadline_seconds=DEADLINE_SECONDS)
    product.delete_namespace(NAMESPACE)


def _value(measured: list[Metric], name: str) -> float:
    [metric] = [item for item in measured if item.name == name]
    return float(metric.value)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_succeeds_and_says_so_in_every_condition(name: str, statuses: dict[str, FineTuneJobStatus]) -> None:
    status = statuses[name]
    assert status.failure is None
    assert status.phase == "Succeeded"
    true = {item.type for item in status.conditions if item.status == "True"}
    assert true >= {"Ready", "Validated", "JobCreated", "ArtifactsUploaded", "Succeeded", "Finished"}
    assert not is_true(status.conditions, ConditionType.RECONCILING)
    assert status.artifacts is not None
    assert status.run_digest is not None
    assert status.progress is not None
    assert status.progress.percent == 100


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_manifest_names_every_file_of_the_run_with_its_digest(
    name: str, statuses: dict[str, FineTuneJobStatus], product: Any
) -> None:
    artifacts = statuses[name].artifacts
    assert artifacts is not None
    manifest = RunManifest.model_validate_json(product.read(artifacts.manifest_uri))
    root = artifacts.manifest_uri.rsplit("/", 1)[0]
    for entry in manifest.files:
        content = product.read(f"{root}/{entry.path}")
        assert (len(content), product.sha256(content)) == (entry.size, entry.sha256)
    assert product.sha256(product.read(artifacts.manifest_uri)) == artifacts.manifest_sha256
    assert len(compute_digest(manifest.files)) == 64
    assert not [entry.path for entry in manifest.files if entry.path.endswith((".bin", ".pt", ".pth", ".pkl"))]
    current = json.loads(product.read(f"s3://runs/{name}/current.json"))
    assert current["manifestSHA256"] == artifacts.manifest_sha256


@pytest.mark.parametrize("name", ["movie-sentiment", "movie-sentiment-full", "movie-sentiment-nf4"])
def test_movie_sentiment_beats_tfidf_on_the_same_rows(
    name: str, statuses: dict[str, FineTuneJobStatus], product: Any
) -> None:
    status = statuses[name]
    assert status.metrics is not None
    assert status.data is not None
    assert (status.data.train_rows, status.data.test_rows) == (2000, 2014)
    files = product.example_files(name)
    tfidf = baseline.tfidf_accuracy(files["datasets/movies/train.jsonl"], files["datasets/movies/test.jsonl"])
    tuned = _value(status.metrics.tuned, "accuracy")
    print(f"{name}: TF-IDF {tfidf:.3f}, base {_value(status.metrics.base, 'accuracy'):.3f}, tuned {tuned:.3f}")
    assert tuned >= 0.79
    assert tuned > tfidf


def test_define_nouns_halves_the_perplexity_of_held_out_answers(statuses: dict[str, FineTuneJobStatus]) -> None:
    measured = statuses["define-nouns"].metrics
    assert measured is not None
    base, tuned = _value(measured.base, "perplexity"), _value(measured.tuned, "perplexity")
    print(f"define-nouns: perplexity {base:.1f} → {tuned:.1f}")
    assert tuned <= base / 2


def test_domain_text_lowers_the_perplexity_of_held_out_prose(statuses: dict[str, FineTuneJobStatus]) -> None:
    measured = statuses["domain-text"].metrics
    assert measured is not None
    base, tuned = _value(measured.base, "perplexity"), _value(measured.tuned, "perplexity")
    print(f"domain-text: perplexity {base:.1f} → {tuned:.1f}")
    assert tuned < base


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As many threads as the run had: in 8 bits another order of sums is worth up to 0.005 in the logits."""
    saved = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(saved)


# peft 0.21 reads a property that transformers 5.23 has renamed.
@pytest.mark.usefixtures("one_thread")
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_the_published_adapter_gives_the_recorded_logits_in_plain_transformers_and_peft(
    statuses: dict[str, FineTuneJobStatus], product: Any, tmp_path: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, BitsAndBytesConfig

    artifacts = statuses["movie-sentiment"].artifacts
    assert artifacts is not None
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    product.download("s3://models/minilm/", base)
    product.download(artifacts.uri, adapter)
    recorded = json.loads(product.read(f"{artifacts.uri.rstrip('/').rsplit('/', 1)[0]}/evaluation.json"))
    said = re.search(r"llm_int8_skip_modules=(\[.*?\])", (adapter / "README.md").read_text())
    assert said is not None, "the model card says which layers are not quantized"
    quantization = BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=ast.literal_eval(said[1]))
    model = AutoModelForSequenceClassification.from_pretrained(
        base, num_labels=2, quantization_config=quantization, dtype=torch.float32
    )
    model = PeftModel.from_pretrained(model, adapter).eval()
    samples = recorded["samples"]
    assert len(samples) == 8
    for sample in samples:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([sample["inputIds"]])).logits[0]
        assert np.allclose(logits.float().numpy(), sample["logits"], atol=1e-4), sample


def test_the_secret_key_appears_in_no_output_of_a_run(
    statuses: dict[str, FineTuneJobStatus], product: Any, tmp_path: Path
) -> None:
    secret = product.running.s3.secret_key.encode()
    for name in statuses:
        product.download(f"s3://runs/{name}/", tmp_path / name)
    outputs = {str(path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    outputs |= product.read_visible_texts(NAMESPACE)
    assert [name for name, content in outputs.items() if secret in content] == []
    assert {name.split(" ")[0] for name in outputs if " " in name} == {"FineTuneJob", "Job", "Pod", "Event", "log"}
    assert len(outputs) > 100


def _query(product: Any, expression: str) -> list[dict[str, Any]]:
    url = f"{product.prometheus_url}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - the cluster's own Prometheus
        result: list[dict[str, Any]] = json.load(answer)["data"]["result"]
    return result


def test_prometheus_scraped_operator_and_trainers_during_the_runs(
    statuses: dict[str, FineTuneJobStatus], product: Any
) -> None:
    assert len(statuses) == len(EXAMPLES)
    # A run's prepare pod has the series too, and stays at 0.
    series = f'{metrics.TRAINER_STEP.name}{{namespace="{NAMESPACE}"}}'
    jobs = _query(product, f"max by (finetune_job) (max_over_time({series}[1h]))")
    steps = {item["metric"]["finetune_job"]: float(item["value"][1]) for item in jobs}
    print(f"{metrics.TRAINER_STEP.name}: {steps}")
    assert set(steps) == set(EXAMPLES)
    assert all(value > 0 for value in steps.values())
    losses = _query(product, f'min_over_time({metrics.TRAINER_LOSS.name}{{namespace="{NAMESPACE}",split="train"}}[1h])')
    assert all(math.isfinite(float(item["value"][1])) for item in losses)
    [finished] = _query(
        product, f'sum({metrics.JOBS_FINISHED_TOTAL.name}{{namespace="{NAMESPACE}",result="succeeded"}})'
    )
    print(f"{metrics.JOBS_FINISHED_TOTAL.name}: {finished['value'][1]}")
    assert float(finished["value"][1]) == len(EXAMPLES)

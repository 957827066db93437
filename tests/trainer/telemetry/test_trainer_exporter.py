"""Metrics and logs: every series of the contract, no failure of theirs in the run, no secret in a line."""

import http.client
import io
import json
import logging
import socket
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from finetune_api import metrics, run
from finetune_api.metrics import Series
from finetune_api.run import JobIdentity, Stage
from finetune_trainer.telemetry import logs, prometheus, server

SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
JOB = JobIdentity(namespace="demo", name="job", uid="uid-1", attempt=2)


def fetch(port: int) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return text


def test_every_trainer_series_of_the_contract_is_served_and_no_other() -> None:
    port = server.start(Stage.TRAIN, 0)
    assert port is not None
    served = {
        (family.name + ("_total" if family.type == "counter" else ""), family.type, family.documentation)
        for family in text_string_to_metric_families(fetch(port))
    }
    wanted = {
        (series.name, series.kind, series.help)
        for name, series in vars(metrics).items()
        if name.startswith("TRAINER_") and isinstance(series, Series)
    }
    assert served == wanted
    assert len(wanted) == 19


def read(name: str, **labels: str) -> float | None:
    return prometheus.REGISTRY.get_sample_value(f"finetune_trainer_{name}", labels)


def test_recorded_figures_are_served() -> None:
    # The registry belongs to the process: runs of other tests may have counted there already.
    steps_before = read("step_duration_seconds_bucket", stage="train", le="0.25") or 0
    prometheus.record_phase("tokenize")
    prometheus.record_plan(250)
    prometheus.record_step(7, 0.2)
    prometheus.record_loss(1.5, "validation")
    prometheus.record_learning_rate(2e-4)
    prometheus.record_gradient_norm(0.7)
    prometheus.record_tokens(123)
    prometheus.record_nonfinite()
    prometheus.record_gpu_memory("0", "peak", 2**30)

    phases = {phase: read("phase", phase=phase) for phase in metrics.TrainerPhase}
    assert phases == {phase: float(phase == "tokenize") for phase in metrics.TrainerPhase}
    assert (read("step"), read("steps_planned"), read("loss", split="validation")) == (7, 250, 1.5)
    assert (read("learning_rate"), read("gradient_norm"), read("gpu_memory_bytes", device="0", kind="peak")) == (
        2e-4,
        0.7,
        2**30,
    )
    assert read("step_duration_seconds_bucket", stage="train", le="0.25") == steps_before + 1


def test_a_figure_that_cannot_be_recorded_costs_a_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    prometheus.record_loss("no number", "train")  # type: ignore[arg-type]  # what a run must survive
    prometheus.record_tokens(-1)
    assert [record.message for record in caplog.records] == ["a metric could not be recorded"] * 2


def test_a_port_that_is_taken_costs_the_figures_not_the_run(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("0.0.0.0", 0)) as taken:  # noqa: S104 - as the exporter listens
        monkeypatch.setenv(run.METRICS_PORT_VARIABLE, str(taken.getsockname()[1]))
        assert server.start(Stage.TRAIN) is None
    monkeypatch.setenv(run.METRICS_PORT_VARIABLE, "not a port")
    assert server.start(Stage.TRAIN) is None
    assert len(caplog.records) == 2


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What is logged, with a secret in the environment; the root logger is put back afterwards."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    stream = io.StringIO()
    logs.set_up_logs(JOB, "train", 3, stream)
    yield stream
    root.handlers = before
    root.setLevel(level)
    logging.captureWarnings(False)


def test_a_line_is_one_json_object_with_job_attempt_and_rank(stream: io.StringIO) -> None:
    logging.getLogger("x").info("step %d\nof many", 7)
    (line,) = stream.getvalue().splitlines()
    found = json.loads(line)
    assert found.pop("time").endswith("+00:00")
    assert found == {
        "level": "info",
        "logger": "x",
        "message": "step 7\nof many",
        "namespace": "demo",
        "name": "job",
        "uid": "uid-1",
        "stage": "train",
        "attempt": 2,
        "rank": 3,
    }


def test_no_secret_gets_into_a_line(stream: io.StringIO) -> None:
    logging.getLogger("x").warning("key %s", SECRET)
    try:
        raise ValueError(f"refused {SECRET}")
    except ValueError:
        logging.getLogger("x").exception("failed")
    assert SECRET not in stream.getvalue()
    assert "Traceback" in json.loads(stream.getvalue().splitlines()[1])["traceback"]


def test_libraries_that_log_request_headers_are_kept_quiet(
    stream: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOG_LEVEL", "debug")
    logs.set_up_logs(JOB, "train", 0, stream)
    logging.getLogger("botocore.auth").debug("headers")
    logging.getLogger("finetune").debug("seen")
    assert [json.loads(line)["message"] for line in stream.getvalue().splitlines()] == ["seen"]

"""Train stages on real S3: writes what the prepare stage leaves, runs the stage here or as a pod would, reads the end.

The rows are random tokens with a rule in them (the second token gives the label away), so a model can learn something
in a few steps. Models come from `tiny_models`, one upload per kind and test run.
"""

import contextlib
import hashlib
import json
import os
import random
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pyarrow
import pyarrow.parquet
import tiny_models
import torch

from finetune_api import artifacts
from finetune_api.artifacts import FileEntry, InputEntry, PreparedManifest, RunManifest
from finetune_api.kinds.finetunejob.status import DataStatus
from finetune_api.run import RunConfig, TerminationMessage
from finetune_api.tasks import TASKS
from finetune_trainer import tasks
from finetune_trainer.model import files as model_files
from finetune_trainer.storage import open_store
from finetune_trainer.tasks import TaskPreparation

BUCKET = "runs"
GGUF_FILE = "tiny.gguf"
LABELS = ("negative", "positive")
ROWS = {"train": 32, "validation": 8, "test": 10}


@dataclass(frozen=True)
class Ended:
    """How a launcher ended."""

    exit_code: int
    message: TerminationMessage
    log: str


@dataclass
class RunBench:
    """An S3 server with base models, on which runs are prepared."""

    server: Any
    folder: Path
    _models: dict[str, tuple[str, InputEntry]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # One server serves all files of a worker.
        if BUCKET not in {bucket["Name"] for bucket in self.client.list_buckets()["Buckets"]}:
            self.client.create_bucket(Bucket=BUCKET)

    @property
    def client(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.server.endpoint_url,
            aws_access_key_id=self.server.access_key,
            aws_secret_access_key=self.server.secret_key,
            region_name="us-east-1",
        )

    @property
    def environment(self) -> dict[str, str]:
        """What a pod gets beside its RunConfig."""
        return {
            "AWS_ACCESS_KEY_ID": self.server.access_key,
            "AWS_SECRET_ACCESS_KEY": self.server.secret_key,
            "FINETUNE_METRICS_PORT": "0",
            "OMP_NUM_THREADS": "1",
            "OMP_WAIT_POLICY": "PASSIVE",
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
        }

    @property
    def storage(self) -> dict[str, str]:
        return {"endpointURL": self.server.endpoint_url, "addressingStyle": "path"}

    def get_model_folder(self, kind: str) -> Path:
        """Return the local folder of a base model: `encoder`, `decoder`, `tied`, or `gguf`, a file of the decoder."""
        folder = self.folder / kind
        if not folder.exists():
            if kind == "encoder":
                tiny_models.build_encoder(folder)
            elif kind == "gguf":
                folder.mkdir()
                tiny_models.write_gguf(self.get_model_folder("decoder"), folder / GGUF_FILE)
            else:
                tiny_models.build_decoder(folder, is_tied=kind == "tied")
        return folder

    def _upload_model(self, config: RunConfig, kind: str) -> InputEntry:
        folder = self.get_model_folder(kind)
        for path in folder.iterdir():
            self.client.upload_file(str(path), BUCKET, f"models/{kind}/{path.name}")
        store, source = open_store(config.spec.storage), config.spec.model
        found = model_files.list_model(store, source)
        entries = store.fetch_files(found.files, self.folder / f"{kind}-again")
        digest = f"sha256:{artifacts.compute_digest(entries)}"
        return InputEntry(uri=source.uri, digest=digest, files=len(entries), size=sum(item.size for item in entries))

    def prepare(
        self,
        task: str,
        model: str,
        *,
        spec: Mapping[str, Any] | None = None,
        resolved: Mapping[str, str] | None = None,
        rows: Mapping[str, int] | None = None,
    ) -> RunConfig:
        """Leave in S3 what the prepare stage would, and return the train stage's RunConfig.

        Args:
            task: of the run.
            model: kind of base model.
            spec: sections of the spec, merged over the defaults.
            resolved: choices, merged over the defaults.
            rows: number of rows by split.
        """
        config = build_config(task, model, self.storage, spec or {})
        if model not in self._models:
            self._models[model] = (model, self._upload_model(config, model))
        layout = artifacts.build_run_layout(config.spec.output.uri, config.job.uid)
        counts, files = rows or ROWS, []
        for split, count in counts.items():
            content = build_parquet(task, count, seed=len(split))
            self._put(layout.prepared(1).join(f"{split}.parquet"), content)
            files.append(
                FileEntry(path=f"{split}.parquet", size=len(content), sha256=hashlib.sha256(content).hexdigest())
            )
        task_rows = tasks.find_preparation(config.spec.task)
        manifest = PreparedManifest(
            uid=config.job.uid,
            attempt=1,
            run_digest=f"sha256:{'5' * 64}",
            files=files,
            inputs=[self._models[model][1]],
            data=DataStatus(
                train_rows=counts.get("train", 0),
                validation_rows=counts.get("validation", 0),
                test_rows=counts.get("test", 0),
            ),
            labels=list(LABELS) if task_rows.HAS_OWN_HEAD else [],
            resolved={
                "packing": self._decide_packing(model, task_rows),
                "microBatchTokens": "64",
                "learningRate": "1e-3",
                "epochs": "1",
                "totalSteps": "4",
                "precision": "Auto",
                "bestMetric": TASKS[config.spec.task].default_metric,
                **(resolved or {}),
            },
        )
        content = manifest.model_dump_json().encode()
        self._put(layout.prepared(1).join(artifacts.PREPARED), content)
        return build_config(
            task,
            model,
            self.storage,
            spec or {},
            uid=config.job.uid,
            prepared={"attempt": 1, "sha256": hashlib.sha256(content).hexdigest()},
        )

    def _decide_packing(self, model: str, task: TaskPreparation) -> str:
        plain = "decoder" if model == "gguf" else model
        facts = json.loads((self.get_model_folder(plain) / "config.json").read_text())
        return "true" if task.is_packable(facts["model_type"]) else "false"

    def _put(self, address: artifacts.S3Address, content: bytes) -> None:
        self.client.put_object(Bucket=address.bucket, Key=address.key, Body=content)

    def list_keys(self, config: RunConfig) -> list[str]:
        """Return what a run has left below its output address, prepared files aside."""
        prefix = artifacts.parse_s3_uri(config.spec.output.uri).key + "/"
        listed = self.client.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
        keys = [item["Key"].removeprefix(prefix).replace(config.job.uid, "UID") for item in listed]
        return sorted(key for key in keys if "/prepared/" not in key)

    def fetch_manifest(self, config: RunConfig) -> tuple[RunManifest, str]:
        """Return the run's manifest and the sha256 of its bytes."""
        layout = artifacts.build_run_layout(config.spec.output.uri, config.job.uid)
        content = self.client.get_object(Bucket=BUCKET, Key=layout.manifest.key)["Body"].read()
        return RunManifest.model_validate_json(content), hashlib.sha256(content).hexdigest()

    def fetch_attempt(self, config: RunConfig, folder: Path, attempt: int = 1) -> Path:
        """Download an attempt's files as a user would."""
        layout = artifacts.build_run_layout(config.spec.output.uri, config.job.uid)
        open_store(config.spec.storage).fetch_folder(layout.writer(attempt, "local"), folder)
        return folder

    def start(self, config: RunConfig, folder: Path, environment: Mapping[str, str] | None = None) -> "Running":
        """Start the launcher as a pod would."""
        folder.mkdir(parents=True, exist_ok=True)
        run_file, log = folder / "run.json", folder / "log"
        run_file.write_text(config.model_dump_json(by_alias=True, exclude_none=True))
        pod = {
            "FINETUNE_RUN_CONFIG": str(run_file),
            "FINETUNE_TERMINATION_LOG": str(folder / "termination"),
            "FINETUNE_SCRATCH": str(folder / "scratch"),
        }
        with log.open("w") as stream:
            process = subprocess.Popen(
                [sys.executable, "-m", "finetune_trainer"],
                env=os.environ | self.environment | pod | dict(environment or {}),
                stderr=stream,
            )
        return Running(process, folder / "termination", log)


@contextlib.contextmanager
def open_bench(server: Any, folder: Path) -> Iterator[RunBench]:
    """Open a bench in this process: with the environment of a pod and one thread."""
    bench = RunBench(server, folder)
    saved = dict(os.environ)
    os.environ.update(bench.environment)
    torch.set_num_threads(1)
    yield bench
    os.environ.clear()
    os.environ.update(saved)


def method(kind: str, quantization: str = "None", variant: str = "Standard") -> dict[str, Any]:
    """Return `spec.method`."""
    return {"kind": kind, "quantization": quantization, "lora": {"variant": variant}}


@dataclass(frozen=True)
class Running:
    """A launcher that was started."""

    process: "subprocess.Popen[bytes]"
    termination: Path
    log: Path

    def wait_for_words(self, words: str, deadline_seconds: float = 120) -> None:
        """Wait until the log has these words."""
        end = time.monotonic() + deadline_seconds
        while words not in self.log.read_text():
            assert time.monotonic() < end, self.log.read_text()
            with contextlib.suppress(subprocess.TimeoutExpired):
                raise AssertionError(f"ended with {self.process.wait(0.2)} before {words}: {self.log.read_text()}")

    def wait(self, timeout: float = 90) -> Ended:
        """Wait for the end."""
        try:
            code = self.process.wait(timeout)
        finally:
            self.process.kill()
        return Ended(code, TerminationMessage.model_validate_json(self.termination.read_bytes()), self.log.read_text())


def build_config(
    task: str,
    model: str,
    storage: Mapping[str, str],
    spec: Mapping[str, Any],
    *,
    uid: str | None = None,
    prepared: Mapping[str, Any] | None = None,
    attempt: int = 1,
) -> RunConfig:
    """Build a RunConfig for the train stage on the CPU."""
    uid = uid or str(uuid.uuid4())
    document = {
        "job": {"namespace": "demo", "name": "tiny", "uid": uid, "attempt": attempt},
        "stage": "train",
        "image": "trainer:test",
        "spec": {
            "task": task,
            "model": {"uri": f"s3://{BUCKET}/models/{model}/{GGUF_FILE if model == 'gguf' else ''}"},
            "data": [{"name": "rows", "train": {"uri": f"s3://{BUCKET}/data/train.jsonl"}}],
            "output": {"uri": f"s3://{BUCKET}/output/{uid}"},
            "storage": dict(storage),
            "resources": {"gpus": 0},
            "training": {"batchSize": 8},
            **spec,
        },
    }
    if prepared is not None:
        document["prepared"] = dict(prepared)
    return RunConfig.model_validate(document)


def build_parquet(task: str, count: int, seed: int) -> bytes:
    """Write prepared rows."""
    source = random.Random(seed)
    rows = []
    for index in range(count):
        tokens = [source.randrange(5, 200) for _ in range(source.randint(4, 24))]
        row: dict[str, Any] = {"row": index, "input_ids": tokens}
        if task == "SequenceClassification":
            row["label"] = source.randrange(len(LABELS))
            tokens[1] = 210 + row["label"]
        else:
            num_prompt = len(tokens) // 3 if task == "InstructionTuning" else 0
            row["labels"] = [-100] * num_prompt + tokens[num_prompt:]
        rows.append(row)
    fields = {"row": pyarrow.int64(), "input_ids": pyarrow.list_(pyarrow.int32())}
    fields |= (
        {"label": pyarrow.int32()} if task == "SequenceClassification" else {"labels": pyarrow.list_(pyarrow.int32())}
    )
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema=pyarrow.schema(list(fields.items()))), sink)
    return bytes(sink.getvalue())


def load_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text())

"""What the operator hands the trainer, and how a stage ends: RunConfig and the termination message.

The two sides meet only here: one JSON file in, one exit code and one JSON object of at most 4 KiB out.
"""

import json
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from finetune_api import wording
from finetune_api.kinds.finetunejob.spec import FineTuneJobSpec
from finetune_api.kinds.finetunejob.status import DataStatus, Digest, MemoryStatus, MetricsStatus, Reason, Resolved
from finetune_api.kinds.object_model import Model

RUN_CONFIG_DIRECTORY = "/run/finetune"
RUN_CONFIG_FILE = "run.json"
RUN_CONFIG_PATH = f"{RUN_CONFIG_DIRECTORY}/{RUN_CONFIG_FILE}"
RUN_CONFIG_VARIABLE = "FINETUNE_RUN_CONFIG"
"""Overrides RUN_CONFIG_PATH; for runs outside a cluster."""
MAX_RUN_CONFIG_BYTES = 131_072
"""Half of the 256 KiB that all annotations of an object may take together."""
SCRATCH_DIRECTORY = "/scratch"
SCRATCH_VARIABLE = "FINETUNE_SCRATCH"
TERMINATION_LOG_PATH = "/dev/termination-log"
TERMINATION_LOG_VARIABLE = "FINETUNE_TERMINATION_LOG"
MAX_TERMINATION_MESSAGE_BYTES = 4096
"""What the kubelet keeps of one container's termination message."""
METRICS_PORT = 9400
METRICS_PORT_NAME = "metrics"
METRICS_PORT_VARIABLE = "FINETUNE_METRICS_PORT"
CONTAINER_NAME = "trainer"
TERMINATION_GRACE_SECONDS = 120
"""terminationGracePeriodSeconds of a trainer pod; the launcher ends its ranks 10 s before (a choice)."""
GRACE_VARIABLE = "FINETUNE_GRACE_SECONDS"
STORE_FOLDER_VARIABLE = "FINETUNE_STORE_FOLDER"
"""Names a folder that takes the place of S3: `s3://bucket/key` is `<folder>/bucket/key`; for runs outside a cluster."""


class Stage(StrEnum):
    PREPARE = "prepare"
    TRAIN = "train"


class JobIdentity(Model):
    namespace: Annotated[str, Field(max_length=63)]
    """namespace of the FineTuneJob."""
    name: Annotated[str, Field(max_length=63)]
    """name of the FineTuneJob."""
    uid: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9-]+$")]
    """uid of the FineTuneJob."""
    attempt: Annotated[int, Field(ge=1)]
    """attempt of this stage, from 1."""


class PreparedReference(Model):
    attempt: Annotated[int, Field(ge=1)]
    """attempt of the prepare stage whose output is to be used."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", max_length=64)]
    """sha256 of its prepared.json."""


class RunConfig(Model):
    """The one file the operator hands the trainer."""

    version: Literal[1] = 1
    """version of this format."""
    job: JobIdentity
    """job this run belongs to."""
    stage: Stage
    """stage to run."""
    spec: FineTuneJobSpec
    """spec with all defaults filled in."""
    image: Annotated[str, Field(max_length=512)] = ""
    """image of the trainer, for the run digest and the manifest."""
    prepared: PreparedReference | None = None
    """prepared output to train on; for stage train."""


class TerminationMessage(Model):
    """The authoritative end of a stage, at most 4 KiB of JSON in /dev/termination-log."""

    version: Literal[1] = 1
    """version of this format."""
    stage: Stage
    """stage that ended."""
    attempt: Annotated[int, Field(ge=1)]
    """attempt that ended."""
    exit_code: Annotated[int, Field(ge=0, le=255)]
    """exitCode the container ends with."""
    reason: Reason | Literal["Completed", "EarlyStopped"]
    """reason: Completed, EarlyStopped, or the reason of the failure."""
    message: str = ""
    """message: where, what was found, what must hold."""
    remedy: str = ""
    """remedy: what to do."""
    step: Annotated[int, Field(ge=0)] | None = None
    """step of the optimizer reached."""
    metrics: MetricsStatus | None = None
    """metrics of base and tuned model; stage train."""
    manifest_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    """manifestSHA256 of the committed run manifest, read back; stage train."""
    artifacts_uri: Annotated[str, Field(max_length=1280)] | None = None
    """artifactsURI of the published model folder; stage train."""
    prepared_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    """preparedSHA256 of prepared.json; stage prepare."""
    run_digest: Digest | None = None
    """runDigest of all inputs; stage prepare."""
    data: DataStatus | None = None
    """data as it was read; stage prepare."""
    memory: MemoryStatus | None = None
    """memory predicted or measured."""
    resolved: Resolved = {}
    """resolved automatic choices."""
    warnings: list[str] = []
    """warnings that did not stop the stage."""


def build_termination_text(message: TerminationMessage) -> str:
    """Serialize a termination message within its 4 KiB, cutting free text first and never a digest.

    Raises:
        ValueError: the message is too long even without any free text.
    """
    data = message.model_dump(mode="json", exclude_none=True)
    text = _dump(data)
    for limit in (1024, 512, 256, 128, 64):
        if len(text.encode()) <= MAX_TERMINATION_MESSAGE_BYTES:
            return text
        for key in ("message", "remedy"):
            data[key] = wording.cut(data.get(key, ""), limit)
        data["warnings"] = [wording.cut(item, limit) for item in data.get("warnings", [])][: limit // 64]
        text = _dump(data)
    for key in ("warnings", "metrics", "resolved"):
        if len(text.encode()) <= MAX_TERMINATION_MESSAGE_BYTES:
            return text
        data.pop(key, None)
        text = _dump(data)
    if len(text.encode()) > MAX_TERMINATION_MESSAGE_BYTES:
        raise ValueError(
            f"termination message ({len(text.encode())} bytes) must be at most {MAX_TERMINATION_MESSAGE_BYTES} bytes"
        )
    return text


def _dump(data: dict[str, object]) -> str:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"))

"""What the operator hands the trainer, and how a stage ends: RunConfig and the termination message.

The two sides meet only here: one JSON file in, one exit code and one JSON object of at most 4 KiB out.
"""

import json
import math
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from finetune_api import wording
from finetune_api.kinds.finetunejob.spec import FineTuneJobSpec
from finetune_api.kinds.finetunejob.status import (
    MAX_CHECKPOINTS,
    MAX_COUNT,
    CheckpointStatus,
    DataStatus,
    Digest,
    MemoryStatus,
    MetricsStatus,
    Reason,
    Resolved,
)
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
POD_UID_VARIABLE = "FINETUNE_POD_UID"
"""The pod's own metadata.uid: pods of one attempt that follow one another write to folders of their own."""
TERMINATION_GRACE_SECONDS = 120
"""Least terminationGracePeriodSeconds of a trainer pod; the launcher ends its ranks 10 s before (a choice)."""
MAX_TERMINATION_GRACE_SECONDS = 1800
"""Most of it (a choice): a node that is drained waits for so long. A state that takes longer to upload isn't saved on
a signal; the run goes on from its last periodic checkpoint."""
GRACE_VARIABLE = "FINETUNE_GRACE_SECONDS"
_UPLOAD_BYTES_PER_SECOND, _SAVE_SECONDS = 50_000_000, 60
"""What a slow store takes, and what ending a step and closing the upload take beside it (a choice)."""
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
    step: Annotated[int, Field(ge=0, le=MAX_COUNT)] | None = None
    """step of the optimizer reached."""
    resumed_from_step: Annotated[int, Field(ge=0, le=MAX_COUNT)] | None = None
    """resumedFromStep is the step that this pod went on from; 0: it began anew; absent: it never came so far."""
    lost_steps: Annotated[int, Field(ge=0, le=MAX_COUNT)] | None = None
    """lostSteps of earlier pods that this one made again, where it knows of them."""
    checkpoints: Annotated[list[CheckpointStatus], Field(max_length=MAX_CHECKPOINTS)] | None = None
    """checkpoints of all attempts in the store, the newest first; absent: not known to this pod."""
    checkpoint_failure: str = ""
    """checkpointFailure: why the latest checkpoint could not be saved. Empty: it was."""
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


def compute_grace_seconds(checkpoint_bytes: int) -> int:
    """Return the terminationGracePeriodSeconds of a pod that saves a state of that size when it is told to stop."""
    needed = _SAVE_SECONDS + math.ceil(checkpoint_bytes / _UPLOAD_BYTES_PER_SECOND)
    return min(max(TERMINATION_GRACE_SECONDS, needed), MAX_TERMINATION_GRACE_SECONDS)


def build_termination_text(message: TerminationMessage) -> str:
    """Serialize a termination message within its 4 KiB: all checkpoints but the newest go first, then free text is cut.

    A digest is never cut.

    Raises:
        ValueError: the message is too long even without any free text.
    """
    data = message.model_dump(mode="json", exclude_none=True)
    text = _dump(data)
    if len(text.encode()) > MAX_TERMINATION_MESSAGE_BYTES and data.get("checkpoints"):
        data["checkpoints"] = data["checkpoints"][:1]
        text = _dump(data)
    for limit in (1024, 512, 256, 128, 64):
        if len(text.encode()) <= MAX_TERMINATION_MESSAGE_BYTES:
            return text
        for key in ("message", "remedy", "checkpointFailure"):
            data[key] = wording.cut(data.get(key, ""), limit)
        data["warnings"] = [wording.cut(item, limit) for item in data.get("warnings", [])][: limit // 64]
        text = _dump(data)
    for key in ("checkpoints", "warnings", "metrics", "resolved"):
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

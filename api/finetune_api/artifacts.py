"""S3 addresses, what lies where under an output folder, and the documents that are written there.

Only this module knows these paths. It opens no connection.
"""

import hashlib
import re
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from finetune_api import wording
from finetune_api.kinds.field_types import S3_URI_PATTERN
from finetune_api.kinds.finetunejob.status import DataStatus, Metric, Resolved
from finetune_api.kinds.object_model import Model

MANIFEST = "manifest.json"
PREPARED = "prepared.json"
REPORT = "report.json"
EVALUATION = "evaluation.json"
METRICS_TABLE = "metrics.csv"
MODEL_CARD = "README.md"
MODEL_FOLDER = "model"
CURRENT = "current.json"
CHECKPOINTS_FOLDER = "checkpoints"
SPLITS = ("train", "validation", "test")

_CHECKPOINT = re.compile(
    r"(?P<attempt>[1-9][0-9]*)/(?P<writer>[A-Za-z0-9.-]+)/"
    + CHECKPOINTS_FOLDER
    + r"/step-(?P<step>[0-9]{6,})/(?P<file>.+)"
)
_UNSAFE_SEGMENT = re.compile(r"(^|/)\.{1,2}(/|$)|//|\\|[\x00-\x1f\x7f]|^/")


def is_safe_key(key: str) -> bool:
    """Tell whether a key stays below its folder: relative, no empty or dot segments, no backslash.

    Nor a control character, which would forge lines of logs and which not every library takes.
    """
    return bool(key) and not _UNSAFE_SEGMENT.search(key)


@dataclass(frozen=True, slots=True)
class S3Address:
    """A bucket and a key; the key may be empty, a folder ends with `/`."""

    bucket: str
    key: str

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}" if self.key else f"s3://{self.bucket}"

    def join(self, *segments: str) -> "S3Address":
        """Return the address of something below this folder.

        Raises:
            ValueError: a segment would leave the folder.
        """
        relative = "/".join(segments)
        if not is_safe_key(relative.removesuffix("/")):
            raise ValueError(f"key {relative!r} must stay below {self}; use names without empty, . and .. segments")
        prefix = f"{self.key.rstrip('/')}/" if self.key.strip("/") else ""
        return S3Address(self.bucket, prefix + relative)


def parse_s3_uri(uri: str) -> S3Address:
    """Split `s3://bucket/key`.

    Raises:
        ValueError: the text is not such an address, or its key has `.`, `..` or empty segments.
    """
    if not re.fullmatch(S3_URI_PATTERN, uri):
        raise ValueError(f"address ({wording.show_value(uri)}) must have the form s3://bucket/key")
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if key and not is_safe_key(key.removesuffix("/")):
        raise ValueError(f"address ({uri}) must not contain the path segments . and ..")
    return S3Address(bucket, key)


@dataclass(frozen=True, slots=True)
class RunLayout:
    """Where one run's files lie below `spec.output.uri`."""

    output: S3Address
    uid: str

    @property
    def current(self) -> S3Address:
        """The published run; replaced last, only by a run that succeeded."""
        return self.output.join(CURRENT)

    @property
    def run(self) -> S3Address:
        return self.output.join("runs", self.uid)

    @property
    def manifest(self) -> S3Address:
        """Written last, with If-None-Match; a run has succeeded exactly when this exists and verifies."""
        return self.run.join(MANIFEST)

    def prepared(self, attempt: int) -> S3Address:
        return self.run.join("prepared", str(attempt))

    @property
    def attempts(self) -> S3Address:
        return self.run.join("attempts")

    def writer(self, attempt: int, writer: str) -> S3Address:
        """The folder of one pod of an attempt: nobody else writes there, so a pod thought dead disturbs no other."""
        return self.attempts.join(str(attempt), writer)

    def model(self, attempt: int, writer: str) -> S3Address:
        return self.writer(attempt, writer).join(MODEL_FOLDER)

    def checkpoint(self, place: "CheckpointPlace") -> S3Address:
        """A training's state after an optimizer step: files, then its manifest."""
        return self.writer(place.attempt, place.writer).join(CHECKPOINTS_FOLDER, f"step-{place.step:06d}")

    def is_inside(self, uri: str) -> bool:
        """Tell whether an address is one of a file or folder of this run."""
        try:
            address = parse_s3_uri(uri)
        except ValueError:
            return False
        return address.bucket == self.run.bucket and address.key.startswith(f"{self.run.key}/")

    def probe(self, attempt: int) -> S3Address:
        """A small object the prepare stage writes, reads back and deletes."""
        return self.run.join(f"probe-{attempt}")


@dataclass(frozen=True, slots=True)
class CheckpointPlace:
    """Who saved a checkpoint, and after which optimizer step."""

    attempt: int
    writer: str
    step: int


def parse_checkpoint_file(name: str) -> tuple[CheckpointPlace, str] | None:
    """Read the name of an object below `RunLayout.attempts`.

    Returns:
        The checkpoint it belongs to and its name in there; None for whatever is no part of one.
    """
    found = _CHECKPOINT.fullmatch(name)
    if found is None:
        return None
    return CheckpointPlace(int(found["attempt"]), found["writer"], int(found["step"])), found["file"]


def build_run_layout(output_uri: str, uid: str) -> RunLayout:
    """Lay out a run below its output address.

    Raises:
        ValueError: the output address isn't valid.
    """
    return RunLayout(parse_s3_uri(output_uri), uid)


class FileEntry(Model):
    path: Annotated[str, Field(min_length=1, max_length=1024)]
    """path relative to the folder the manifest describes."""
    size: Annotated[int, Field(ge=0)]
    """size in bytes."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """sha256 of the content."""


class InputEntry(Model):
    uri: str
    """uri as the spec names it."""
    digest: str
    """digest of the files read: `sha256:` over their paths, sizes and sha256."""
    files: Annotated[int, Field(ge=0)]
    """files read."""
    size: Annotated[int, Field(ge=0)]
    """size in bytes."""


class RunManifest(Model):
    """runs/<uid>/manifest.json: every file of the published attempt and all inputs, written last."""

    version: Literal[1] = 1
    """version of this format."""
    namespace: str
    """namespace of the FineTuneJob."""
    name: str
    """name of the FineTuneJob."""
    uid: str
    """uid of the FineTuneJob."""
    attempt: int
    """attempt that published."""
    writer: str
    """writer: the pod's uid, which names its folder."""
    run_digest: str
    """runDigest of all inputs."""
    files: list[FileEntry]
    """files of the attempt, relative to the run's folder."""
    inputs: list[InputEntry]
    """inputs that were read."""
    metrics: dict[str, list[Metric]]
    """metrics of base and tuned model."""
    resolved: Resolved = {}
    """resolved automatic choices."""
    versions: dict[str, str]
    """versions of the libraries and the trainer image."""
    outcome: Literal["Completed", "EarlyStopped"] = "Completed"
    """outcome of the training."""
    steps: Annotated[int, Field(ge=0)] = 0
    """steps of the optimizer of the whole run, each counted once."""
    tokens: Annotated[int, Field(ge=0)] = 0
    """tokens trained on in them, padding excluded."""
    seconds: Annotated[float, Field(ge=0)] = 0.0
    """seconds of training behind the published weights, evaluation included: what was done again is not in it."""


class PreparedManifest(Model):
    """prepared/<attempt>/prepared.json: what the prepare stage made, written last."""

    version: Literal[1] = 1
    """version of this format."""
    uid: str
    """uid of the FineTuneJob."""
    attempt: int
    """attempt of the prepare stage."""
    run_digest: str
    """runDigest of all inputs."""
    files: list[FileEntry]
    """files in this folder."""
    inputs: list[InputEntry]
    """inputs that were read, the base model first."""
    data: DataStatus
    """data as it was read."""
    labels: list[str] = []
    """labels in the order of their ids; for labelled tasks."""
    resolved: Resolved = {}
    """resolved automatic choices."""
    warnings: list[str] = []
    """warnings that did not stop the stage."""


class CheckpointManifest(Model):
    """checkpoints/step-<n>/manifest.json: one saved state of a training, written last."""

    version: Literal[1] = 1
    """version of this format."""
    uid: str
    """uid of the FineTuneJob."""
    attempt: Annotated[int, Field(ge=1)]
    """attempt that saved it."""
    writer: str
    """writer: the pod's uid, which names its folder."""
    step: Annotated[int, Field(ge=0)]
    """step of the optimizer after which it was saved."""
    total_steps: Annotated[int, Field(ge=1)]
    """totalSteps planned."""
    is_finished: bool = False
    """isFinished where the training is done and only evaluation and publishing are left."""
    time: str
    """time it was saved."""
    run_digest: str
    """runDigest of all inputs; only a run with the same one goes on from here."""
    prepared_sha256: str
    """preparedSHA256 of the prepared.json that is trained on."""
    metrics: list[Metric] = []
    """metrics of the latest evaluation."""
    files: list[FileEntry]
    """files in this folder."""
    digest: str = ""
    """digest of everything above: sha256 of it as compact JSON."""

    def compute_digest(self) -> str:
        """Digest everything but the digest."""
        return hashlib.sha256(self.model_dump_json(exclude={"digest"}).encode()).hexdigest()


class CurrentRun(Model):
    """current.json: the published run."""

    version: Literal[1] = 1
    """version of this format."""
    uid: str
    """uid of the FineTuneJob."""
    name: str
    """name of the FineTuneJob."""
    model_uri: str
    """modelURI of the tuned model."""
    manifest_uri: str
    """manifestURI of the run's manifest."""
    manifest_sha256: str
    """manifestSHA256 of that manifest."""


def compute_digest(entries: list[FileEntry]) -> str:
    """Digest a folder: sha256 over `<sha256>  <path>` lines in path order, as `sha256sum` would list them."""
    lines = "".join(f"{entry.sha256}  {entry.path}\n" for entry in sorted(entries, key=lambda item: item.path))
    return hashlib.sha256(lines.encode()).hexdigest()

"""What a user writes: FineTuneJobSpec and its parts, with unit, default and range of every field.

The docstring below a field is its description in the CRD (`kubectl explain`). Rules across fields stand in
`finetune_api.rules`, not here. Python names are snake_case, the serialized ones camelCase. What other kinds have too
(storage, pods, the types of single fields) lies one folder up.
"""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from finetune_api.kinds.field_types import (
    COLUMN_PATTERN,
    LABEL_PATTERN,
    MODULE_PATTERN,
    SHA256_PATTERN,
    ModelUri,
    S3Uri,
    Text,
    Unique,
)
from finetune_api.kinds.object_model import Model
from finetune_api.kinds.pods import Placement, Resources, Trainer
from finetune_api.kinds.storage import Storage
from finetune_api.quantities import BelowOneString, DecimalString, FractionString, PositiveDecimalString


class Task(StrEnum):
    SEQUENCE_CLASSIFICATION = "SequenceClassification"
    TOKEN_CLASSIFICATION = "TokenClassification"  # noqa: S105 - a task
    CAUSAL_LM = "CausalLM"
    INSTRUCTION_TUNING = "InstructionTuning"
    SEQ2SEQ_LM = "Seq2SeqLM"
    QUESTION_ANSWERING = "QuestionAnswering"
    PREFERENCE = "Preference"
    REINFORCEMENT = "Reinforcement"


class MethodKind(StrEnum):
    FULL = "Full"
    LORA = "LoRA"
    HEAD_ONLY = "HeadOnly"


class Quantization(StrEnum):
    NONE = "None"
    INT8 = "Int8"
    NF4 = "NF4"


class LoraVariant(StrEnum):
    STANDARD = "Standard"
    RS_LORA = "RSLoRA"
    DORA = "DoRA"


class PreferenceLoss(StrEnum):
    DPO = "DPO"
    ORPO = "ORPO"
    KTO = "KTO"


class Scheduler(StrEnum):
    LINEAR = "linear"
    COSINE = "cosine"
    CONSTANT = "constant"
    CONSTANT_WITH_WARMUP = "constant_with_warmup"


class Precision(StrEnum):
    AUTO = "Auto"
    FLOAT32 = "Float32"
    BFLOAT16 = "BFloat16"


class SpecialTokensInText(StrEnum):
    WARN = "Warn"
    TEXT = "Text"
    REFUSE = "Refuse"


class OmittedTurns(StrEnum):
    REFUSE = "Refuse"
    WARN = "Warn"


class RowsWithoutTarget(StrEnum):
    REFUSE = "Refuse"
    DROP = "Drop"


class EvaluationInterval(StrEnum):
    EPOCH = "Epoch"
    STEPS = "Steps"
    END = "End"


class ModelSource(Model):
    uri: ModelUri
    """uri of the base model: `s3://bucket/folder/` holding a Hugging Face model of safetensors, or one `.gguf` file."""
    sha256: Annotated[str, Field(pattern=SHA256_PATTERN, max_length=64)] = ""
    """sha256 of the one file, or of the folder's list of digests; verified before use. Empty: not pinned."""


class DataFile(Model):
    uri: S3Uri
    """uri of a file, a folder or a glob; .jsonl .json .csv .tsv .parquet .txt, each also .gz or .zst."""


class Dataset(Model):
    name: Annotated[str, Field(pattern=LABEL_PATTERN, max_length=63)]
    """name of the data set within the job."""
    train: DataFile
    """train is what the model learns from."""
    validation: DataFile | None = None
    """validation chooses the checkpoint. Absent: split from train by spec.split."""
    test: DataFile | None = None
    """test is never seen in training or model selection. Absent: split from train if spec.split.test is above 0."""
    columns: dict[
        Annotated[str, Field(max_length=32)],
        Annotated[str, Field(min_length=1, max_length=256, pattern=COLUMN_PATTERN)],
    ] = Field(default={}, max_length=16)
    """columns maps a role of the task (text, label, prompt …) to a column. Empty: roles are detected from the names."""
    instruction: Text = ""
    """instruction is a template put around each sample. Empty: none."""
    weight: PositiveDecimalString = "1"
    """weight of this data set in a mixture."""


class Split(Model):
    validation: FractionString = "0.1"
    """validation is the share of train held out where no validation file is given."""
    test: FractionString = "0"
    """test is the share of train held out where no test file is given."""
    stratify: bool = True
    """stratify keeps the share of each label in every part; for labelled tasks."""


class Lora(Model):
    rank: Annotated[int, Field(gt=0, le=512)] = 8
    """rank of the update matrices."""
    alpha: Annotated[int, Field(gt=0, le=4096)] = 16
    """alpha scales the update by alpha / rank."""
    dropout: BelowOneString = "0.05"
    """dropout before the update matrices, in training only; below 1."""
    target_modules: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=128, pattern=MODULE_PATTERN)]],
        Field(min_length=1, max_length=64, json_schema_extra={"x-kubernetes-list-type": "set"}),
        Unique,
    ] = ["all-linear"]
    """targetModules are names of linear layers, or `all-linear`: every linear layer but the head."""
    variant: LoraVariant = LoraVariant.STANDARD
    """variant of the method: Standard, RSLoRA (scaled by the root of the rank) or DoRA (magnitude apart)."""


class Method(Model):
    kind: MethodKind = MethodKind.LORA
    """kind of fine-tuning: Full (every weight), LoRA (small update matrices) or HeadOnly (the task's head)."""
    quantization: Quantization = Quantization.NONE
    """quantization of the frozen base: None, Int8 or NF4; with LoRA only."""
    lora: Lora = Field(default=Lora())
    """lora holds the settings of kind LoRA."""
    preference: PreferenceLoss | None = None
    """preference is the loss of task Preference."""


class EarlyStopping(Model):
    patience: Annotated[int, Field(ge=1, le=100)] = 2
    """patience is the number of evaluations without improvement after which training ends, as a success."""
    min_delta: DecimalString = "0.0"
    """minDelta is the least change that counts as an improvement."""


class Training(Model):
    epochs: PositiveDecimalString | None = None
    """epochs over the training rows, at most 50. Neither epochs nor maxSteps: chosen from the number of rows."""
    max_steps: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """maxSteps is the number of optimizer steps; instead of epochs."""
    batch_size: Annotated[int, Field(ge=1, le=65536)] = 16
    """batchSize is the number of samples per optimizer step over all GPUs; split into micro-batches by itself."""
    learning_rate: PositiveDecimalString | None = None
    """learningRate at its highest. Absent: chosen by the method and shown in status.resolved."""
    scheduler: Scheduler = Scheduler.LINEAR
    """scheduler of the learning rate, by its transformers name."""
    warmup_fraction: BelowOneString = "0.03"
    """warmupFraction is the share of steps in which the learning rate rises from 0."""
    weight_decay: FractionString = "0.01"
    """weightDecay of AdamW."""
    max_length: Annotated[int, Field(ge=8, le=1_048_576)] = 256
    """maxLength of a sample in tokens; longer ones are cut and counted."""
    rows_without_target: RowsWithoutTarget = RowsWithoutTarget.REFUSE
    """rowsWithoutTarget: what becomes of rows of which maxLength leaves no token to learn. Refuse ends the run and
    names them; Drop leaves them out and counts them."""
    special_tokens_in_text: SpecialTokensInText = SpecialTokensInText.WARN
    """specialTokensInText: what becomes of texts in the data that hold the text of special tokens, such as <|im_end|>.
    Warn counts them, and they become those tokens; Text reads them as text; Refuse ends the run and names them."""
    omitted_turns: OmittedTurns = OmittedTurns.REFUSE
    """omittedTurns: what becomes of conversations with a turn that the model's chat template leaves out, such as one of
    the system. Refuse ends the run and names them; Warn learns them without that turn and counts them."""
    packing: bool = True
    """packing lays samples one after another instead of padding them. It changes speed, not results: no sample sees
    another, and a step holds the same samples. status.resolved says where an architecture is padded all the same."""
    precision: Precision = Precision.AUTO
    """precision of the weights in training. Auto: BFloat16 on GPUs that have it, else Float32."""
    seed: Annotated[int, Field(ge=0, le=2_147_483_647)] = 13
    """seed of split, order, dropout and new weights: the same inputs and seed give the same run."""
    early_stopping: EarlyStopping | None = None
    """earlyStopping ends training when the best metric stops improving. Absent: never."""


class Evaluation(Model):
    every: EvaluationInterval = EvaluationInterval.EPOCH
    """every says when the validation rows are evaluated: Epoch, Steps (everySteps) or End."""
    every_steps: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """everySteps is the number of optimizer steps between evaluations; with every: Steps only."""
    best_metric: Annotated[str, Field(max_length=64)] = ""
    """bestMetric decides which checkpoint is kept; its direction is known. Empty: the task's own."""
    compare_with_base: bool = True
    """compareWithBase evaluates the base model on the same rows as the tuned one."""


class Output(Model):
    uri: S3Uri
    """uri of the folder the run writes below."""
    merge: bool = False
    """merge folds the adapter into the base model and publishes a full model."""


class Checkpoint(Model):
    every_seconds: Annotated[int, Field(ge=10, le=86_400)] | None = None
    """everySeconds between two checkpoints. Absent: decided by how long a save takes; status.resolved.checkpointSeconds
    says it."""
    keep: Annotated[int, Field(ge=1, le=10)] = 2
    """keep so many of the newest checkpoints; older ones are deleted."""
    keep_after_success: bool = False
    """keepAfterSuccess leaves them in the store once the run has succeeded. Otherwise they are deleted then; a run that
    failed keeps them."""


class RunPolicy(Model):
    suspend: bool = False
    """suspend stops the pods; set it back to go on. Mutable."""
    backoff_limit: Annotated[int, Field(ge=0, le=20)] = 3
    """backoffLimit is the number of counted failures that are retried."""
    active_deadline_seconds: Annotated[int, Field(ge=60, le=31_536_000)] = 86_400
    """activeDeadlineSeconds of running time over all attempts. Mutable upward."""
    pending_deadline_seconds: Annotated[int, Field(ge=1, le=31_536_000)] = 3600
    """pendingDeadlineSeconds without a running pod, after which the run has failed."""
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=31_536_000)] = 86_400
    """ttlSecondsAfterFinished removes the child Jobs after the end, never the FineTuneJob. Mutable."""
    checkpoint: Checkpoint = Field(default=Checkpoint())
    """checkpoint says how often the state of the training is saved: what goes on after an interruption begins there."""
    preemption_limit: Annotated[int, Field(ge=0, le=10_000)] | None = None
    """preemptionLimit is the number of interruptions that the run survives: drained nodes, preemption, a signal; they
    don't count against backoffLimit. Absent: any number."""


class FineTuneJobSpec(Model):
    """What to fine-tune, on what, how, and where the result goes."""

    task: Task
    """task decides data roles, head, loss and metrics."""
    model: ModelSource
    """model is the base model."""
    data: Annotated[
        list[Dataset],
        Field(
            min_length=1,
            max_length=16,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
        Unique,
    ]
    """data to train and evaluate on."""
    split: Split = Field(default=Split())
    """split of train where no validation or test file is given."""
    method: Method = Field(default=Method())
    """method of fine-tuning."""
    training: Training = Field(default=Training())
    """training holds the hyper-parameters."""
    evaluation: Evaluation = Field(default=Evaluation())
    """evaluation during and after training."""
    output: Output
    """output says where the result goes."""
    storage: Storage = Field(default=Storage())
    """storage says how s3:// is reached."""
    resources: Resources = Field(default=Resources())
    """resources of the train pod."""
    placement: Placement = Field(default=Placement())
    """placement of the pods."""
    trainer: Trainer = Field(default=Trainer())
    """trainer image and environment."""
    run_policy: RunPolicy = Field(default=RunPolicy())
    """runPolicy: retries, deadlines, suspension and clean-up."""

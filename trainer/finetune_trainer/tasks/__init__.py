"""What a task is: everything the stages ask of one, on this page, in the order in which a row meets it.

A task is a folder of its own with two modules, named after the stages that ask them. `prepare` must not bring torch;
`train` builds the task's head, and is imported late. Between them a row becomes a sample, tokens, a batch, a loss, a
metric and an answer in the published report. What only names and defaults need (roles, metrics, learning rates) is the
task's entry in `finetune_api.tasks`.

Nothing outside this folder asks which task it has, and no task knows another; what two of them share lies below them,
in `data`, `batches`, `losses`, `evaluation`, or here in `next_tokens_prepare` and `next_tokens_train`. `make new-task
NAME=…` writes a task's skeleton.
"""

import importlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from finetune_api.kinds.finetunejob.spec import FineTuneJobSpec, Task
from finetune_api.tasks import TASKS
from finetune_trainer.data.findings import Findings
from finetune_trainer.data.readers import Record
from finetune_trainer.data.samples import Sample, Segment, Shape, TokenizedRow
from finetune_trainer.model.facts import ModelFacts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from finetune_trainer.batches.collate import Batch, Padding
    from finetune_trainer.evaluation.metrics import Scores
    from finetune_trainer.evaluation.report import Answer
    from finetune_trainer.losses.parts import LossParts

__all__ = ["TaskHead", "TaskPreparation", "build_head", "find_fitting_tasks", "find_preparation"]


class TaskPreparation(Protocol):
    """The module `prepare` of a task: from rows to tokens, and what can be said of its model without loading it."""

    SHAPES: tuple[Shape, ...]
    """Row → sample: the ways rows may look, the preferred one first."""
    TOKENS: tuple[str, ...]
    """Sample → tokens: columns of a tokenized row whose tokens go through the model; together they are its length."""
    TARGETS: str
    """Column of what is learned: a number per row, or a list in which `IGNORED` marks what is not."""
    MODEL_CLASS: str
    """The auto class of transformers that loads a model with the task's head."""
    ADAPTER_TASK: str
    """What peft calls the task: a `peft.TaskType`."""
    HAS_OWN_HEAD: bool
    """Whether the task puts a head of its own on the model: the checkpoint may lack it, every method trains it."""
    PIPELINE: str
    """What model hubs call the task, for the model card."""
    ANSWERS: str
    """What the report holds of some rows for anybody to check, in the words of the model card."""

    def parse_sample(self, row: int, record: Record, columns: Mapping[str, str], findings: Findings) -> Sample | None:
        """Check a row and return it as a sample, or None after noting everything that is wrong with it.

        The labels a sample names become the run's label set: those of the training rows, in the order of their ids.
        """

    def check_tokenizer(self, tokenizer: "PreTrainedTokenizerBase", columns: Mapping[str, str]) -> dict[str, str]:
        """Check that the tokenizer can do the task; return what was chosen, for `status.resolved`."""

    def tokenize_batch(
        self,
        samples: Sequence[Sample],
        tokenizer: "PreTrainedTokenizerBase",
        max_length: int,
        label_ids: Mapping[str, int],
    ) -> list[TokenizedRow]:
        """Turn samples into tokens and targets, cut to `max_length`; all rows of a run have the same columns."""

    def build_segments(self, row: TokenizedRow) -> list[Segment]:
        """Return a row's tokens in segments that are learned or not, as the data report shows one."""

    def fits_model(self, facts: ModelFacts) -> bool:
        """Tell whether the architecture can be trained for the task."""

    def build_model_arguments(self, labels: Sequence[str]) -> dict[str, Any]:
        """Return what the model's configuration must say for the task, as arguments of `from_pretrained`.

        Args:
            labels: of the run, in the order of their ids; empty where samples name none.
        """

    def is_packable(self, model_type: str) -> bool:
        """Tell whether several rows may share one of the batch; each architecture has a test that proves it."""

    def predict_output_bytes(self, facts: ModelFacts, tokens: int, width: int, device: str) -> int:
        """Predict what the task's outputs and their loss add to the memory of a micro-batch.

        Args:
            facts: of the base model.
            tokens: of the micro-batch.
            width: bytes of an element of the output.
            device: `cpu` or `cuda`.
        """


class TaskHead(Protocol):
    """What the module `train` of a task builds: from tokenized rows to losses, metrics and answers."""

    def collate(self, rows: Sequence[Mapping[str, Any]], padding: "Padding", *, is_packed: bool) -> "Batch":
        """Tokens → batch: make one micro-batch, packed or padded.

        Its `labels` hold what is learned; each entry that is not `IGNORED` is one target. Without one the batch must
        still go through `compute_loss`.
        """

    def packing(self, model: Any) -> AbstractContextManager[None]:
        """Let a model of an architecture that `is_packable` take packed rows; afterwards it is as it was."""

    def compute_loss(self, model: Any, batch: "Batch", *, is_autocast: bool) -> "LossParts":
        """Batch → loss: run the model on one micro-batch.

        Args:
            model: in the mode it should run in; wrapped or not.
            batch: from `collate`, on the model's device.
            is_autocast: the matrix products are in bfloat16 while the weights are not.
        """

    def build_scores(self) -> "Scores":
        """Loss → metrics: return what gathers the task's metrics, those of its entry in `finetune_api.tasks`."""

    def build_answer(self, model: Any, batch: "Batch", *, is_autocast: bool) -> "Answer":
        """Return what the published report says of one row, computed as somebody with the published model would."""


def find_preparation(task: Task) -> TaskPreparation:
    """Return the module `prepare` of a task; `finetune_api.validation` lets only those pass that have one."""
    preparation: TaskPreparation = importlib.import_module(f"{__name__}.{task.name.lower()}").PREPARATION
    return preparation


def build_head(spec: FineTuneJobSpec, labels: Sequence[str]) -> TaskHead:
    """Build the head of a run's task; imports torch.

    Args:
        spec: of the run.
        labels: in the order of their ids; empty where samples name none.
    """
    head: TaskHead = importlib.import_module(f"{__name__}.{spec.task.name.lower()}").build_head(spec, labels)
    return head


def find_fitting_tasks(facts: ModelFacts) -> list[Task]:
    """Return the tasks an architecture can be trained for."""
    return [task for task in TASKS if find_preparation(task).fits_model(facts)]

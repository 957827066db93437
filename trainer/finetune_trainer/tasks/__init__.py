"""The registry of tasks: what the stages ask of each, and which module answers.

A task is a module. Its upper part is the data side, which `prepare` uses and which must not import torch; its lower
part is the train side. The modules don't know each other; what they share stands in `dataset`.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from finetune_api.kinds.finetunejob.spec import Task
from finetune_trainer.data.readers import Findings, Record
from finetune_trainer.data.samples import Sample, Shape, TokenizedRow
from finetune_trainer.tasks.causal_lm import rows as causal_lm
from finetune_trainer.tasks.instruction_tuning import rows as instruction_tuning
from finetune_trainer.tasks.sequence_classification import rows as sequence_classification

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["TASKS", "TaskData", "find_task"]


class TaskData(Protocol):
    """What `prepare` needs of a task."""

    SHAPES: tuple[Shape, ...]
    """The ways rows may look, the preferred one first."""
    IS_LABELLED: bool
    """Whether each row carries one label of a set."""
    MODEL_CLASS: str
    """The auto class of transformers that loads a model with the task's head."""

    def parse_sample(self, row: int, record: Record, columns: Mapping[str, str], findings: Findings) -> Sample | None:
        """Check a row and return it as a sample, or None after noting everything that is wrong with it."""

    def check_tokenizer(self, tokenizer: "PreTrainedTokenizerBase", columns: Mapping[str, str]) -> dict[str, str]:
        """Check that the tokenizer can do the task; return what was chosen, for `status.resolved`."""

    def tokenize_batch(
        self,
        samples: Sequence[Sample],
        tokenizer: "PreTrainedTokenizerBase",
        max_length: int,
        label_ids: Mapping[str, int],
    ) -> list[TokenizedRow]:
        """Turn samples into tokens and labels, cut to `max_length`."""


TASKS: dict[Task, TaskData] = {
    Task.SEQUENCE_CLASSIFICATION: sequence_classification,
    Task.CAUSAL_LM: causal_lm,
    Task.INSTRUCTION_TUNING: instruction_tuning,
}


def find_task(task: Task) -> TaskData:
    """Return the module of a task; `finetune_api.validation` lets only those pass that are here."""
    return TASKS[task]

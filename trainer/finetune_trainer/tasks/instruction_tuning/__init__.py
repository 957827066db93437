"""InstructionTuning: a model learns answers, each with its end of turn, and nothing of what was asked."""

from collections.abc import Sequence

from finetune_api.kinds.finetunejob.spec import FineTuneJobSpec
from finetune_trainer.tasks import TaskHead, TaskPreparation
from finetune_trainer.tasks.instruction_tuning import prepare

PREPARATION: TaskPreparation = prepare


def build_head(spec: FineTuneJobSpec, labels: Sequence[str]) -> TaskHead:
    """Build the part that needs torch."""
    from finetune_trainer.tasks.instruction_tuning import train

    return train.build(spec, labels)

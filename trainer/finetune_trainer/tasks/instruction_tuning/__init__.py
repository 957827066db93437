"""InstructionTuning: a model learns answers, each with its end of turn, and nothing of what was asked."""

from collections.abc import Sequence

from finetune_api.kinds.finetunejob.spec import FineTuneJobSpec
from finetune_trainer.tasks import TaskHead, TaskRows
from finetune_trainer.tasks.instruction_tuning import rows

ROWS: TaskRows = rows


def build_head(spec: FineTuneJobSpec, labels: Sequence[str]) -> TaskHead:
    """Build the part that needs torch."""
    from finetune_trainer.tasks.instruction_tuning import head

    return head.build(spec, labels)

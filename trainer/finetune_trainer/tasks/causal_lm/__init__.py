"""CausalLM: a model learns to continue plain text."""

from collections.abc import Sequence

from finetune_api.kinds.finetunejob.spec import FineTuneJobSpec
from finetune_trainer.tasks import TaskHead, TaskRows
from finetune_trainer.tasks.causal_lm import rows

ROWS: TaskRows = rows


def build_head(spec: FineTuneJobSpec, labels: Sequence[str]) -> TaskHead:
    """Build the part that needs torch."""
    from finetune_trainer.tasks.causal_lm import head

    return head.build(spec, labels)

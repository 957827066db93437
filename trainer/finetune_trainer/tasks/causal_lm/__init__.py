"""CausalLM: a model learns to continue plain text."""

from collections.abc import Sequence

from finetune_api.kinds.finetunejob.spec import FineTuneJobSpec
from finetune_trainer.tasks import TaskHead, TaskPreparation
from finetune_trainer.tasks.causal_lm import prepare

PREPARATION: TaskPreparation = prepare


def build_head(spec: FineTuneJobSpec, labels: Sequence[str]) -> TaskHead:
    """Build the part that needs torch."""
    from finetune_trainer.tasks.causal_lm import train

    return train.build(spec, labels)

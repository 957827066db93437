"""SequenceClassification: a text, or a pair of texts, gets one label of a set."""

from collections.abc import Sequence

from finetune_api.kinds.finetunejob.spec import FineTuneJobSpec
from finetune_trainer.tasks import TaskHead, TaskPreparation
from finetune_trainer.tasks.sequence_classification import prepare

PREPARATION: TaskPreparation = prepare


def build_head(spec: FineTuneJobSpec, labels: Sequence[str]) -> TaskHead:
    """Build the part that needs torch."""
    from finetune_trainer.tasks.sequence_classification import train

    return train.build(spec, labels)

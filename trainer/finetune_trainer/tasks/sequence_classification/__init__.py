"""SequenceClassification: a text, or a pair of texts, gets one label of a set."""

from collections.abc import Sequence

from finetune_api.kinds.finetunejob.spec import FineTuneJobSpec
from finetune_trainer.tasks import TaskHead, TaskRows
from finetune_trainer.tasks.sequence_classification import rows

ROWS: TaskRows = rows


def build_head(spec: FineTuneJobSpec, labels: Sequence[str]) -> TaskHead:
    """Build the part that needs torch."""
    from finetune_trainer.tasks.sequence_classification import head

    return head.build(spec, labels)

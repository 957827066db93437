"""CausalLM in the train stage: the language model's own head, scored on every token."""

from collections.abc import Sequence

from finetune_api.kinds.finetunejob.spec import FineTuneJobSpec
from finetune_trainer.tasks.next_tokens_train import NextTokensHead


def build(spec: FineTuneJobSpec, labels: Sequence[str]) -> NextTokensHead:
    """Build the head; nothing of it is chosen by the spec."""
    del spec, labels
    return NextTokensHead()

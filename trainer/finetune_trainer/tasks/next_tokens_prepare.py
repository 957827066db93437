"""What tasks share in the prepare stage whose model learns next tokens with its own head; no task by itself.

Brings no torch; the train stage's half is `next_tokens_train`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from finetune_api.errors import ModelError
from finetune_trainer.data import samples as dataset
from finetune_trainer.data.samples import Segment, TokenizedRow
from finetune_trainer.model import architectures
from finetune_trainer.model.facts import ModelFacts
from finetune_trainer.planning import memory

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TOKENS: tuple[str, ...] = ("input_ids",)
TARGETS = "labels"
MODEL_CLASS = "AutoModelForCausalLM"
ADAPTER_TASK = "CAUSAL_LM"
HAS_OWN_HEAD = False
PIPELINE = "text-generation"
ANSWERS = "next tokens"


def check_stop_token(tokenizer: "PreTrainedTokenizerBase") -> None:
    """Check that the tokenizer can mark the end of a text.

    Raises:
        ModelError: it has no end-of-text token.
    """
    if tokenizer.eos_token_id is None:
        raise ModelError(
            "spec.model.uri: the tokenizer must have an end-of-text token (eos_token); it has none",
            "set eos_token in tokenizer_config.json.",
        )


def build_segments(row: TokenizedRow) -> list[Segment]:
    """Return a row's tokens in segments that are learned or not."""
    return dataset.build_segments(row.lists["input_ids"], row.lists["labels"])


def fits_model(facts: ModelFacts) -> bool:
    """Tell whether the architecture writes texts from left to right."""
    return architectures.is_generative(facts)


def build_model_arguments(labels: Sequence[str]) -> dict[str, Any]:
    """Return nothing: a language model is trained as it is."""
    del labels
    return {}


def is_packable(model_type: str) -> bool:
    """Tell whether several rows may share one."""
    return model_type in architectures.PACKED_DECODERS


def predict_output_bytes(facts: ModelFacts, tokens: int, width: int, device: str) -> int:
    """Predict the memory of logits and their loss: one per token and vocabulary entry."""
    return memory.predict_logit_bytes(facts, tokens, width, device)

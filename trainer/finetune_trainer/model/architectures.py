"""What transformers can do with an architecture, from its own tables of names: none of this loads torch."""

import importlib

from finetune_trainer.model.facts import ModelFacts


def is_listed(model_type: str, table: str) -> bool:
    """Tell whether an architecture stands in one of transformers' tables.

    Args:
        model_type: of the configuration.
        table: such as `MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES`.
    """
    # The module itself: as an attribute of its package it asks for torch, which its tables of names don't need.
    tables = importlib.import_module("transformers.models.auto.modeling_auto")
    return model_type in getattr(tables, table)


_ENCODERS = frozenset({"bert-generation"})
"""Encoders that stand in none of transformers' tables of such."""


def is_generative(facts: ModelFacts) -> bool:
    """Tell whether an architecture writes texts from left to right."""
    # Encoders are listed as causal too, for those few that were trained that way; others see what they should predict.
    is_masked = is_listed(facts.model_type, "MODEL_FOR_MASKED_LM_MAPPING_NAMES") or facts.model_type in _ENCODERS
    is_encoder = is_masked and not facts.is_decoder
    is_causal = is_listed(facts.model_type, "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES") and not is_encoder
    # Of those that read with an encoder the class for causal models takes the decoder alone.
    return is_causal and not facts.is_encoder_decoder


PACKED_DECODERS = frozenset({"gemma", "gpt2", "llama", "mistral", "qwen2", "qwen3"})
"""Architectures whose samples may share a row as language models; each has a test against one sample at a time."""


PACKED_ENCODERS = {"bert": "bert.encoder"}
"""Architectures whose samples may share a row as classifiers, and the module whose first token per sample the head
reads; each has such a test too."""


PLAIN_HEADS = PACKED_DECODERS
"""Architectures whose logits are nothing but the product of the last states and the head's matrix: they are scored
without their logits. The tests of the packed ones compare that too."""


UNQUANTIZABLE = {"rwkv": "it divides its weights in place when it is evaluated"}
"""Architectures whose layers bitsandbytes replaces and that then fail, with the reason."""

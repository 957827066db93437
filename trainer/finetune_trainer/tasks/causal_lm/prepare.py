"""CausalLM: a model learns to continue plain text.

Rows: one column with a text. Every token is learned, and after the last one the end of the text.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from finetune_api.errors import ModelError
from finetune_trainer.data import samples as dataset
from finetune_trainer.data.findings import Findings
from finetune_trainer.data.readers import Record
from finetune_trainer.data.samples import Part, Remark, Sample, Segment, Shape, TokenizedRow
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
SHAPES: tuple[Shape, ...] = (
    Shape(required={"text": ("text", "content", "document", "body", "sentence", "passage", "article")}),
)


def parse_sample(row: int, record: Record, columns: Mapping[str, str], findings: Findings) -> Sample | None:
    """Check a row and return it as a sample, or None after noting what is wrong with it."""
    text = dataset.read_text(record, columns["text"], findings)
    return None if text is None else Sample(row, record.place, (Part("text", text),))


def check_tokenizer(tokenizer: "PreTrainedTokenizerBase", columns: Mapping[str, str]) -> dict[str, str]:
    """Check that the tokenizer can mark the end of a text.

    Raises:
        ModelError: it has no end-of-text token.
    """
    del columns
    if tokenizer.eos_token_id is None:
        raise ModelError(
            "spec.model.uri: the tokenizer must have an end-of-text token (eos_token); it has none",
            "set eos_token in tokenizer_config.json.",
        )
    return {"stopToken": str(tokenizer.eos_token)}


def tokenize_batch(
    samples: Sequence[Sample], tokenizer: "PreTrainedTokenizerBase", max_length: int, label_ids: Mapping[str, int]
) -> list[TokenizedRow]:
    """Turn samples into tokens, each its own label, and the end-of-text token; cut to `max_length`."""
    del label_ids
    rows = []
    for encoded in dataset.encode_texts(tokenizer, [sample.parts[0].text for sample in samples]):
        ids, remarks = encoded, tuple[Remark, ...]()
        if len(ids) > 1 and ids[0] == ids[1] == tokenizer.bos_token_id:
            ids, remarks = ids[1:], (Remark.REPEATED_BOS,)
        whole = ids if ids and ids[-1] == tokenizer.eos_token_id else [*ids, tokenizer.eos_token_id]
        kept = whole[:max_length]
        rows.append(
            TokenizedRow(
                {"input_ids": kept, "labels": kept},
                is_truncated=len(kept) < len(whole),
                num_whole=len(whole),
                num_lost=len(whole) - len(kept),
                remarks=remarks,
            )
        )
    return rows


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

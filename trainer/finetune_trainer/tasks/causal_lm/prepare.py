"""CausalLM: a model learns to continue plain text.

Rows: one column with a text. Every token is learned, and after the last one the end of the text.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from finetune_trainer.data import samples as dataset
from finetune_trainer.data.findings import Findings
from finetune_trainer.data.readers import Record
from finetune_trainer.data.samples import Part, Remark, Sample, Shape, TokenizedRow
from finetune_trainer.tasks import next_tokens_prepare

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TOKENS, TARGETS = next_tokens_prepare.TOKENS, next_tokens_prepare.TARGETS
MODEL_CLASS = next_tokens_prepare.MODEL_CLASS
ADAPTER_TASK = next_tokens_prepare.ADAPTER_TASK
HAS_OWN_HEAD = next_tokens_prepare.HAS_OWN_HEAD
PIPELINE, ANSWERS = next_tokens_prepare.PIPELINE, next_tokens_prepare.ANSWERS
build_segments = next_tokens_prepare.build_segments
fits_model = next_tokens_prepare.fits_model
build_model_arguments = next_tokens_prepare.build_model_arguments
is_packable = next_tokens_prepare.is_packable
predict_output_bytes = next_tokens_prepare.predict_output_bytes
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
    next_tokens_prepare.check_stop_token(tokenizer)
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

"""SequenceClassification: a text, or a pair of texts, gets one label of a set.

Rows: a column for the text, optionally one for a second text, one for the label. Every row is one training target.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from finetune_trainer.data import samples as dataset
from finetune_trainer.data.findings import Findings
from finetune_trainer.data.readers import Record
from finetune_trainer.data.samples import Part, Sample, Segment, Shape, TokenizedRow
from finetune_trainer.model import architectures
from finetune_trainer.model.facts import ModelFacts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TOKENS: tuple[str, ...] = ("input_ids",)
TARGETS = "label"
MODEL_CLASS = "AutoModelForSequenceClassification"
ADAPTER_TASK = "SEQ_CLS"
HAS_OWN_HEAD = True
PIPELINE = "text-classification"
ANSWERS = "logits"
_LABELS = ("label", "labels", "class", "category", "target", "sentiment", "intent", "output")
_PAIRS = (
    *(("sentence1", "sentence2"), ("text1", "text2"), ("question1", "question2"), ("premise", "hypothesis")),
    *(("question", "sentence"), ("question", "passage"), ("question", "context"), ("query", "document")),
    *(("query", "passage"), ("text", "text_pair"), ("text_a", "text_b")),
)
"""Names that stand for two texts of a row, as GLUE and others have them: none of them says all alone."""
SHAPES: tuple[Shape, ...] = (
    *(
        Shape({"text": (first,), "textPair": (second,), "label": _LABELS}, is_only_detected=True)
        for first, second in _PAIRS
    ),
    Shape(
        required={
            "text": (
                *("text", "sentence", "content", "review", "comment", "document", "body", "question"),
                *("sentence1", "text1", "premise", "tweet", "message", "input"),
            ),
            "label": _LABELS,
        },
        optional={"textPair": ("textpair", "text_pair", "sentence2", "text2", "hypothesis")},
    ),
)


def parse_sample(row: int, record: Record, columns: Mapping[str, str], findings: Findings) -> Sample | None:
    """Check a row and return it as a sample, or None after noting everything that is wrong with it."""
    text = dataset.read_text(record, columns["text"], findings)
    label = dataset.read_label(record, columns["label"], findings)
    parts = [Part("text", text or "")]
    is_whole = text is not None and label is not None
    if "textPair" in columns:
        pair = dataset.read_text(record, columns["textPair"], findings)
        parts.append(Part("textPair", pair or ""))
        is_whole = is_whole and pair is not None
    return Sample(row, record.place, tuple(parts), (label or "",)) if is_whole else None


def check_tokenizer(tokenizer: "PreTrainedTokenizerBase", columns: Mapping[str, str]) -> dict[str, str]:
    """Check that the tokenizer can do the task; any can."""
    del tokenizer, columns
    return {}


def tokenize_batch(
    samples: Sequence[Sample], tokenizer: "PreTrainedTokenizerBase", max_length: int, label_ids: Mapping[str, int]
) -> list[TokenizedRow]:
    """Turn samples into tokens, cut to `max_length`; of a pair, the longer text is cut first."""
    texts = [sample.parts[0].text for sample in samples]
    pairs = [sample.parts[1].text for sample in samples] if len(samples[0].parts) > 1 else None
    encoded = tokenizer(
        texts,
        pairs,
        truncation="longest_first",
        max_length=max_length,
        return_attention_mask=False,
        return_token_type_ids=None if pairs else False,
    )
    with_types = pairs is not None and "token_type_ids" in encoded
    names = ["input_ids", "token_type_ids"] if with_types else ["input_ids"]
    return [
        TokenizedRow(
            lists={name: encoded[name][index] for name in names},
            numbers={"label": label_ids[sample.labels[0]]},
            is_truncated=bool(encoded.encodings[index].overflowing),
        )
        for index, sample in enumerate(samples)
    ]


def build_segments(row: TokenizedRow) -> list[Segment]:
    """Return the row's tokens as one segment: what is learned stands beside them."""
    return [Segment(row.lists["input_ids"], is_learned=False)]


def fits_model(facts: ModelFacts) -> bool:
    """Tell whether the architecture has a head for sequences."""
    return architectures.is_listed(facts.model_type, "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES")


def build_model_arguments(labels: Sequence[str]) -> dict[str, Any]:
    """Return number and names of the labels, and that a row has one: a head for several would be read otherwise."""
    names = dict(enumerate(labels))
    return {
        "num_labels": len(labels),
        "id2label": names,
        "label2id": {name: index for index, name in names.items()},
        "problem_type": "single_label_classification",
    }


def is_packable(model_type: str) -> bool:
    """Tell whether several rows may share one."""
    return model_type in architectures.PACKED_ENCODERS


def predict_output_bytes(facts: ModelFacts, tokens: int, width: int, device: str) -> int:
    """Predict next to nothing: a few logits per row."""
    del facts, tokens, width, device
    return 0

"""What a user should know about the data: counts, lengths, duplicates, overlaps, and one row as the model sees it.

The report is a document beside the prepared rows; what needs attention becomes a warning in the status. Rows that stand
in two splits make every figure a lie, so most of a test set seen in training ends the run.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from finetune_api.errors import DataError
from finetune_trainer import dataset
from finetune_trainer.dataset import IGNORED, Sample, TokenCounts, TokenizedRow

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

VERSION = 1
_FEW_ROWS = 100
_MUCH_TRUNCATION = 0.1
_MOST_OVERLAP = 0.5
_SHOWN_PLACES = 3
"""Thresholds of warnings and of the refusal (choices); places named in a warning."""


def build_document(content: Mapping[str, Any]) -> bytes:
    """Serialize a report for people and programs: indented JSON in UTF-8."""
    return json.dumps(content, ensure_ascii=False, indent=1).encode("utf-8", "backslashreplace")


def build_lengths(counts: TokenCounts) -> dict[str, Any]:
    """Summarize lengths: least, median, 95th percentile, most, and a histogram with doubling bounds."""
    ordered = sorted(counts.lengths)
    if not ordered:
        return {}
    histogram: list[dict[str, int]] = []
    bound = 8
    while not histogram or histogram[-1]["upTo"] < ordered[-1]:
        below = sum(entry["rows"] for entry in histogram)
        histogram.append({"upTo": bound, "rows": sum(1 for length in ordered if length <= bound) - below})
        bound *= 2
    return {
        "min": ordered[0],
        "median": ordered[len(ordered) // 2],
        "p95": ordered[min(len(ordered) - 1, len(ordered) * 95 // 100)],
        "max": ordered[-1],
        "histogram": histogram,
    }


def build_split(samples: Sequence[Sample], counts: TokenCounts) -> dict[str, Any]:
    """Summarize one split."""
    exact = Counter(sample.parts for sample in samples)
    near = Counter(dataset.build_text_key(sample) for sample in samples)
    labels = Counter(sample.label for sample in samples if sample.label)
    return {
        "rows": len(samples),
        "tokens": counts.num_tokens,
        "learnedTargets": counts.num_learned,
        "truncatedRows": counts.num_truncated,
        "lengths": build_lengths(counts),
        "exactDuplicates": sum(exact.values()) - len(exact),
        "nearDuplicates": sum(near.values()) - len(near),
        "conflictingLabels": len(_find_conflicts(samples)),
        "labels": dict(sorted(labels.items())),
    }


def _find_conflicts(samples: Sequence[Sample]) -> list[Sample]:
    """Return the samples whose text stands there before with another label."""
    first: dict[bytes, str] = {}
    return [
        sample for sample in samples if first.setdefault(dataset.build_text_key(sample), sample.label) != sample.label
    ]


def find_overlaps(samples: Mapping[str, Sequence[Sample]]) -> dict[str, list[Sample]]:
    """Return, for each pair of splits, the samples of the second whose text stands in the first."""
    keys = {split: {dataset.build_text_key(sample) for sample in members} for split, members in samples.items()}
    return {
        f"{first}/{second}": [sample for sample in samples[second] if dataset.build_text_key(sample) in keys[first]]
        for first, second in (("train", "validation"), ("train", "test"), ("validation", "test"))
        if samples[first] and samples[second]
    }


def check_overlaps(overlaps: Mapping[str, Sequence[Sample]], samples: Mapping[str, Sequence[Sample]]) -> list[str]:
    """Return a warning for each overlap.

    Raises:
        DataError: most of the validation or test rows stand in the training rows.
    """
    warnings = []
    for pair, shared in overlaps.items():
        first, second = pair.split("/")
        if not shared:
            continue
        places = ", ".join(sample.place for sample in shared[:_SHOWN_PLACES])
        text = f"{len(shared)} of {len(samples[second])} {second} rows stand in the {first} rows too, such as {places}"
        if first == "train" and len(shared) > _MOST_OVERLAP * len(samples[second]):
            raise DataError(
                f"spec.data[0].{second} must hold rows that are not trained on; {text}",
                f"give other {second} rows, or leave them out and let spec.split hold some out.",
            )
        warnings.append(text)
    return warnings


def build_warnings(
    samples: Mapping[str, Sequence[Sample]], counts: Mapping[str, TokenCounts], splits: Mapping[str, dict[str, Any]]
) -> list[str]:
    """Say what doesn't stop the run and should still be known."""
    warnings = []
    num_rows = len(samples["train"])
    if num_rows < _FEW_ROWS:
        warnings.append(f"{num_rows} training rows are few; results vary much below {_FEW_ROWS}")
    for split, members in samples.items():
        truncated = counts[split].num_truncated
        if members and truncated > _MUCH_TRUNCATION * len(members):
            warnings.append(
                f"{truncated} of {len(members)} {split} rows are longer than spec.training.maxLength and were cut"
            )
    if near := splits["train"]["nearDuplicates"]:
        warnings.append(f"{near} of {num_rows} training rows repeat an earlier one but for blanks and case")
    if conflicts := _find_conflicts(samples["train"]):
        places = ", ".join(sample.place for sample in conflicts[:_SHOWN_PLACES])
        warnings.append(f"{len(conflicts)} training rows have another label than the same text before: {places}")
    return warnings


def build_example(sample: Sample, row: TokenizedRow, tokenizer: "PreTrainedTokenizerBase") -> dict[str, Any]:
    """Show one row as the model sees it: its text in stretches that are learned or not."""
    marks = [label != IGNORED for label in row.labels] if row.labels is not None else [False] * len(row.input_ids)
    stretches: list[dict[str, Any]] = []
    start = 0
    for end in range(1, len(marks) + 1):
        if end == len(marks) or marks[end] != marks[start]:
            stretches.append({"text": tokenizer.decode(row.input_ids[start:end]), "learned": marks[start]})
            start = end
    return {"place": sample.place, "row": sample.row, "label": sample.label, "stretches": stretches}

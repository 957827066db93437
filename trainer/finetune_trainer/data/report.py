"""What a user should know about the data: counts, lengths, duplicates, overlaps, and one row as the model sees it.

The report is a document beside the prepared rows; what needs attention becomes a warning in the status. Rows that stand
in two splits make every figure a lie, so most of a test set seen in training ends the run.
"""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy

from finetune_api.errors import DataError
from finetune_trainer.data.fingerprints import Facts, Indices
from finetune_trainer.data.samples import Sample, Segment
from finetune_trainer.data.tokenized_files import TokenCounts

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
    ordered = numpy.sort(numpy.frombuffer(counts.lengths, numpy.uint32))
    if not len(ordered):
        return {}
    histogram: list[dict[str, int]] = []
    bound, below = 8, 0
    while not histogram or histogram[-1]["upTo"] < ordered[-1]:
        upto = int(numpy.searchsorted(ordered, bound, side="right"))
        histogram.append({"upTo": bound, "rows": upto - below})
        bound, below = bound * 2, upto
    return {
        "min": int(ordered[0]),
        "median": int(ordered[len(ordered) // 2]),
        "p95": int(ordered[min(len(ordered) - 1, len(ordered) * 95 // 100)]),
        "max": int(ordered[-1]),
        "histogram": histogram,
    }


def build_split(facts: Facts, rows: Indices, counts: TokenCounts) -> dict[str, Any]:
    """Summarize one split.

    Args:
        facts: of all rows.
        rows: those of the split.
        counts: its tokens.
    """
    num_exact, num_near = facts.count_repeated(rows)
    return {
        "rows": len(rows),
        "tokens": counts.num_tokens,
        "learnedTargets": counts.num_learned,
        "truncatedRows": counts.num_truncated,
        "lostTargets": counts.num_lost,
        "droppedRows": counts.num_dropped,
        "lengths": build_lengths(counts),
        "exactDuplicates": num_exact,
        "nearDuplicates": num_near,
        "conflictingLabels": len(facts.find_conflicts(rows)),
        "labels": facts.count_labels(rows),
    }


def find_overlaps(facts: Facts, rows: Mapping[str, Indices]) -> dict[str, Indices]:
    """Return, for each pair of splits, the rows of the second whose text stands in the first."""
    return {
        f"{first}/{second}": facts.find_shared(rows[second], rows[first])
        for first, second in (("train", "validation"), ("train", "test"), ("validation", "test"))
        if len(rows[first]) and len(rows[second])
    }


def check_overlaps(facts: Facts, overlaps: Mapping[str, Indices], rows: Mapping[str, Indices]) -> list[str]:
    """Return a warning for each overlap.

    Raises:
        DataError: most of the validation or test rows stand in the training rows.
    """
    warnings = []
    for pair, shared in overlaps.items():
        first, second = pair.split("/")
        if not len(shared):
            continue
        text = (
            f"{len(shared)} of {len(rows[second])} {second} rows stand in the {first} rows too, such as"
            f" {_show_places(facts, shared)}"
        )
        if first == "train" and len(shared) > _MOST_OVERLAP * len(rows[second]):
            raise DataError(
                f"spec.data[0].{second} must hold rows that are not trained on; {text}",
                f"give other {second} rows, or leave them out and let spec.split hold some out.",
            )
        warnings.append(text)
    return warnings


def _show_places(facts: Facts, rows: Indices) -> str:
    return ", ".join(facts.find_place(row) for row in rows[:_SHOWN_PLACES].tolist())


def build_warnings(
    facts: Facts,
    rows: Mapping[str, Indices],
    splits: Mapping[str, dict[str, Any]],
    counts: Mapping[str, TokenCounts],
) -> list[str]:
    """Say what doesn't stop the run and should still be known.

    Args:
        facts: of all rows.
        rows: those of each split.
        splits: the summaries from `build_split`.
        counts: the tokens of each split.
    """
    warnings = []
    num_rows = len(rows["train"])
    if num_rows < _FEW_ROWS:
        warnings.append(f"{num_rows} training rows are few; results vary much below {_FEW_ROWS}")
    for split, members in rows.items():
        truncated = splits[split]["truncatedRows"]
        if truncated > _MUCH_TRUNCATION * len(members):
            warnings.append(
                f"{truncated} of {len(members)} {split} rows are longer than spec.training.maxLength and were cut"
            )
    warnings += [warning for split, counted in counts.items() for warning in _warn_about_tokens(split, counted)]
    if near := splits["train"]["nearDuplicates"]:
        warnings.append(f"{near} of {num_rows} training rows repeat an earlier one but for blanks and case")
    if splits["train"]["conflictingLabels"]:
        conflicts = facts.find_conflicts(rows["train"])
        places = _show_places(facts, conflicts)
        warnings.append(f"{len(conflicts)} training rows have another label than the same text before: {places}")
    return warnings


def _warn_about_tokens(split: str, counts: TokenCounts) -> list[str]:
    warnings = []
    if counts.num_lost:
        warnings.append(
            f"{counts.num_lost} tokens of {split} rows that were to be learned were cut off by spec.training.maxLength;"
            f" {counts.longest} would keep all of them"
        )
    if counts.num_dropped:
        warnings.append(
            f"{counts.num_dropped} {split} rows are left out: spec.training.maxLength leaves no token of them to learn;"
            f" {counts.longest} would keep all of them"
        )
    for remark, places in counts.remarks.items():
        shown = ", ".join(place for place in places if place)
        warnings.append(f"{len(places)} {split} rows {remark}, such as {shown}")
    return warnings


def build_example(sample: Sample, segments: Sequence[Segment], tokenizer: "PreTrainedTokenizerBase") -> dict[str, Any]:
    """Show one row as the model sees it: its text in segments that are learned or not."""
    shown = [{"text": tokenizer.decode(item.token_ids), "learned": item.is_learned} for item in segments]
    return {"place": sample.place, "row": sample.row, "label": ", ".join(sample.labels), "segments": shown}

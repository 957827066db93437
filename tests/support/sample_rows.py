"""Samples of one text each, and what the trainer remembers of them."""

from collections.abc import Sequence

from finetune_trainer.data.fingerprints import Facts, Ledger
from finetune_trainer.data.samples import Part, Sample


def make_samples(texts: Sequence[str], labels: Sequence[str] | None = None) -> list[Sample]:
    """Return the samples of `t.jsonl`, a line each."""
    return [
        Sample(row, f"t.jsonl line {row + 1}", (Part("text", text),), (labels[row],) if labels else ())
        for row, text in enumerate(texts)
    ]


def make_facts(samples: Sequence[Sample]) -> Facts:
    """Return what is remembered of samples."""
    ledger = Ledger()
    for sample in samples:
        ledger.add(sample)
    return ledger.close()

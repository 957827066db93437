"""Rows of skewed lengths as real data has them, drawn from a fixed seed: a long tail, few rows near the limit."""

import tempfile
from pathlib import Path
from typing import Any

import numpy
import pyarrow
import pyarrow.parquet

from finetune_trainer.batches import dataset
from finetune_trainer.batches.dataset import Rows

MEAN_LOG, SIGMA_LOG = 4.6, 1.0
"""Of the lognormal lengths: half of the rows have fewer than 100 tokens."""


def draw_lengths(count: int, longest: int, seed: int, shortest: int = 16) -> list[int]:
    """Draw lengths in tokens."""
    drawn = numpy.random.default_rng(seed).lognormal(MEAN_LOG, SIGMA_LOG, count)
    return [int(length) for length in numpy.clip(drawn, shortest, longest)]


def describe_lengths(lengths: list[int]) -> str:
    """Return count, mean and a histogram with doubling bounds, to stand beside any ratio: padding depends on them."""
    bounds = [32, 64, 128, 256, 512, 1024]
    counts, _ = numpy.histogram(lengths, [0, *(bound + 1 for bound in bounds)])
    parts = ", ".join(f"≤ {bound}: {count}" for bound, count in zip(bounds, counts, strict=True))
    return f"{len(lengths)} rows, mean {sum(lengths) / len(lengths):.0f} tokens ({parts})"


def draw_rows(lengths: list[int], vocabulary: int, seed: int, num_labels: int = 0) -> list[dict[str, Any]]:
    """Draw token ids; each row is its own target, or has one of `num_labels` labels."""
    generator = numpy.random.default_rng(seed)
    rows = []
    for number, length in enumerate(lengths):
        ids = generator.integers(5, vocabulary, length).tolist()
        target = {"label": number % num_labels} if num_labels else {"labels": ids}
        rows.append({"input_ids": ids} | target)
    return rows


def map_rows(drawn: list[dict[str, Any]]) -> Rows:
    """Bring rows into the form the train stage reads."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "rows.parquet"
        tokens = pyarrow.list_(pyarrow.int32())
        columns = {"row": pyarrow.array(range(len(drawn)), pyarrow.int64())}
        for key in drawn[0]:
            columns[key] = pyarrow.array([row[key] for row in drawn], pyarrow.int32() if key == "label" else tokens)
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
        dataset.unpack_rows(path)
        # The files stay mapped when their names are gone.
        return dataset.load_rows(path)

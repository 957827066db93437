"""Packed rows against the same rows one at a time: loss and every gradient, for each architecture that is packed.

A difference is relative to the largest number of the gradient it lies in; the table has the largest of all gradients.
Correctness first: no output of one row may change at all when another row's tokens do.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests" / "support"))

import torch
from packed_models import (
    MODELS,
    compute_other_rows,
    compute_packed,
    compute_singly,
    find_head,
    make_rows,
    measure_error,
)
from recording import Result, record

LIMIT = 1e-5
"""Of the relative error in float32."""


def main() -> None:
    """Measure and record."""
    results = []
    for name in MODELS:
        head = find_head(name)
        before, after, _ = compute_other_rows(MODELS[name]().eval(), head)
        assert torch.equal(before, after)
        model = MODELS[name]()
        rows = make_rows()
        singly = compute_singly(model, rows, head)
        packed = compute_packed(model, rows, head)
        error = max(abs(packed[0] - singly[0]) / singly[0], measure_error(packed[2], singly[2]))
        results.append(Result(f"{name}: largest relative error, against 1e-5", error, LIMIT, "", 1.0))
    record("packing", results, ("torch", "transformers"))


if __name__ == "__main__":
    main()

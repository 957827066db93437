"""Packed rows against the same rows one at a time: loss and every gradient, for each architecture that is packed.

A difference is relative to the largest number of the gradient it lies in; the table has the largest of all gradients.
Correctness first: no output of one row may change at all when another row's tokens do.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests" / "support"))

import torch
from packed_models import LENGTHS, MODELS, VOCABULARY, compute_packed, compute_singly, make_rows, measure_error
from recording import Result, record

from finetune_trainer import attention, collate

LIMIT = 1e-5
"""Of the relative error in float32."""


def check_sentinel(name: str) -> None:
    """Change the first row and see that nothing of the others moves."""
    model, is_labelled = MODELS[name]().eval(), name == "bert"
    rows = make_rows(is_labelled=is_labelled)
    changed = [{**rows[0], "input_ids": (rows[0]["input_ids"] + 1) % VOCABULARY}, *rows[1:]]
    outputs = []
    for given in (rows, changed):
        batch = collate.collate_packed(given)
        batch.pop("labels")
        with attention.packed(model, is_labelled=is_labelled), torch.no_grad():
            logits = model(**batch).logits
        outputs.append(logits.reshape(-1, logits.shape[-1])[1 if is_labelled else LENGTHS[0] :])
    assert torch.equal(*outputs)


def main() -> None:
    """Measure and record."""
    results = []
    for name in MODELS:
        check_sentinel(name)
        model, is_labelled = MODELS[name](), name == "bert"
        rows = make_rows(is_labelled=is_labelled)
        singly = compute_singly(model, rows, is_labelled=is_labelled)
        packed = compute_packed(model, rows, is_labelled=is_labelled)
        error = max(abs(packed[0] - singly[0]) / singly[0], measure_error(packed[2], singly[2]))
        results.append(Result(f"{name}: largest relative error, against 1e-5", error, LIMIT, "", 1.0))
    record("packing", results, ("torch", "transformers"))


if __name__ == "__main__":
    main()

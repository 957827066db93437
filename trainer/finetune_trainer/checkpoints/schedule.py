"""How large a training's state is and how often saving it is worth its cost. Plain arithmetic.

The prepare stage tells the first, so that a pod gets the time its state needs when it is told to end.
"""

import math

from finetune_api import quantities, run

SHORTEST_SECONDS = 60.0
"""Between two checkpoints, where nobody has chosen: what an interruption may cost at most."""
_BYTES_PER_PARAMETER = 16
"""A float32 weight, its two moments, and the best weights so far."""
_COST = 0.01
"""Share of a training's time that checkpoints may take (a choice)."""
_BYTES_PER_SECOND = {"cpu": 400e6, "cuda": 5e9}
"""What one second pays for. On a CPU the processor copies, hashes and sends beside the training, at about 400 MB a
second of its time (`benchmarks/bench_checkpoints.py`). Beside a GPU only the copy counts, over a bus of 5 GB/s."""


def predict_bytes(num_trained: int) -> int:
    """Predict the size of a checkpoint.

    Args:
        num_trained: parameters that are trained.
    """
    return num_trained * _BYTES_PER_PARAMETER


def warn_of_notice(num_bytes: int) -> list[str]:
    """Say so where a state is too large to be saved in the time a node gives that is taken back.

    Args:
        num_bytes: of a checkpoint.
    """
    seconds = run.compute_grace_seconds(num_bytes)
    if seconds <= run.TERMINATION_GRACE_SECONDS:
        return []
    size = quantities.build_quantity(num_bytes)
    return [
        f"a checkpoint of {size} may take {seconds} s to save: a node that is taken back with less notice, as spot "
        "nodes are, costs the steps since the last one (spec.runPolicy.checkpoint.everySeconds)"
    ]


def choose_seconds(num_bytes: int, device: str) -> float:
    """Choose the seconds between two checkpoints: as few as keep their cost below a hundredth.

    Args:
        num_bytes: of a checkpoint.
        device: `cpu` or `cuda`.
    """
    return float(max(SHORTEST_SECONDS, math.ceil(num_bytes / _BYTES_PER_SECOND[device] / _COST)))

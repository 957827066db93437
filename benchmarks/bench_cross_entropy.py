"""A language model's loss with 128,256 vocabulary entries: extra memory and CPU time, against whole logits.

2,048 targets, hidden size 256, one thread, float32. Each way runs in a fresh process that first makes the same inputs;
what the loss and its gradients then add to the peak of resident memory is counted. Correctness first: loss and
gradients of both ways are equal to 1e-5, with frozen and trained head, label smoothing and weights of targets.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import torch
from recording import Result, record
from torch.nn import functional

from finetune_trainer.losses import chunked_lm_head

TARGETS, HIDDEN, VOCABULARY = 2048, 256, 128_256
ROUNDS = 3
CASES = {
    "frozen head": {"is_trained": False},
    "trained head": {"is_trained": True},
    "trained head, label smoothing and weights": {"is_trained": True, "smoothing": 0.1, "is_weighted": True},
}


def make_inputs(vocabulary: int, *, is_trained: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Make states [N, H], head [V, H], targets [N] and weights of the targets [N] from a fixed seed."""
    generator = torch.Generator().manual_seed(13)
    states = torch.randn(TARGETS, HIDDEN, generator=generator).requires_grad_()
    head = (torch.randn(vocabulary, HIDDEN, generator=generator) / HIDDEN**0.5).requires_grad_(is_trained)
    targets = torch.randint(0, vocabulary, (TARGETS,), generator=generator)
    return states, head, targets, torch.rand(TARGETS, generator=generator)


def compute(way: str, inputs: Any, *, smoothing: float = 0.0, is_weighted: bool = False, **_: Any) -> torch.Tensor:
    """Compute the mean loss one way."""
    states, head, targets, weights = inputs
    if way == "ours":
        found = chunked_lm_head.compute_head_loss(
            states, head, targets, label_smoothing=smoothing, target_weights=weights if is_weighted else None
        )
        return found.total / TARGETS
    losses = functional.cross_entropy(states @ head.T, targets, reduction="none", label_smoothing=smoothing)
    return (losses * weights if is_weighted else losses).sum() / TARGETS


def check(case: dict[str, Any]) -> None:
    """Compare loss and gradients of both ways on a smaller vocabulary."""
    found = {}
    for way in ("ours", "logits"):
        inputs = make_inputs(5000, is_trained=case["is_trained"])
        loss = compute(way, inputs, **case)
        loss.backward()
        found[way] = [loss.detach(), *(tensor.grad for tensor in inputs[:2] if tensor.grad is not None)]
    for ours, theirs in zip(*found.values(), strict=True):
        assert float((ours - theirs).abs().max() / theirs.abs().max()) < 1e-5


def _restart_peak() -> None:
    """Let the peak of resident memory begin anew at what is resident now."""
    Path("/proc/self/clear_refs").write_text("5")


def _read_peak() -> int:
    """Read the peak of this process's resident memory in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def run_alone(way: str, name: str) -> None:
    """Be the process of one way: print its extra memory and CPU-seconds as JSON."""
    torch.set_num_threads(1)
    case = CASES[name]
    # The kernels load their code on first use: that belongs to neither way.
    compute(way, make_inputs(64, is_trained=True)).backward()
    inputs = make_inputs(VOCABULARY, is_trained=case["is_trained"])
    _restart_peak()
    before, began = _read_peak(), time.process_time()
    compute(way, inputs, **case).backward()
    print(json.dumps({"seconds": time.process_time() - began, "bytes": _read_peak() - before}))


def _measure(way: str, name: str) -> dict[str, float]:
    ended = subprocess.run([sys.executable, __file__, way, name], check=True, capture_output=True, text=True)
    figures: dict[str, float] = json.loads(ended.stdout.splitlines()[-1])
    return figures


def main() -> None:
    """Measure and record."""
    results = []
    for name, case in CASES.items():
        check(case)
        rounds = [{way: _measure(way, name) for way in ("ours", "logits")} for _ in range(ROUNDS)]

        def get_median(way: str, figure: str, rounds: list[dict[str, dict[str, float]]] = rounds) -> float:
            return statistics.median(item[way][figure] for item in rounds)

        # A trained head needs its gradient either way; what the logits cost is the rest.
        spared = 4 * VOCABULARY * HIDDEN if case["is_trained"] else 0
        memory = [(get_median(way, "bytes") - spared) / 2**20 for way in ("ours", "logits")]
        results += [
            Result(f"{name}: extra memory, against whole logits", memory[0], memory[1], "MiB", 0.05),
            Result(
                f"{name}: time, against whole logits",
                *(get_median(way, "seconds") for way in ("ours", "logits")),
                "CPU-s",
                1.0,
            ),
        ]
    record("cross_entropy", results, ("torch",))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        run_alone(*sys.argv[1:])
    else:
        main()

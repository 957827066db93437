"""The benchmark for GPUs runs, with tiny shapes, on a machine without one; its figures are not looked at."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))


@pytest.mark.parametrize(
    ("number", "arm"), [(0, "ours"), (0, "Trainer"), (2, "ours"), (4, "ours")], ids=["LoRA", "peer", "on NF4", "full"]
)
# peft 0.21 reads a property that transformers 5.23 has renamed.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_a_case_of_the_gpu_benchmark_runs_with_tiny_shapes(number: int, arm: str) -> None:
    import bench_gpu

    figures = bench_gpu.train_alone(bench_gpu.CASES[number], arm, is_tiny=True)

    assert figures["tokens_per_second"] > 0
    assert figures["flops"] > 6e5

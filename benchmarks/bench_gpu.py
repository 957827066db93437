"""Tokens per second and peak memory on one GPU, against the Hugging Face Trainer and TRL's packing on the same card.

Weights are drawn at random in the published shapes of Llama 3.1 8B, Qwen 2.5 7B and Llama 3.2 1B; nothing is
downloaded. Rows have 4,096 tokens, bfloat16 throughout. LoRA has rank 16 on all linear layers. Each training runs in a
process of its own: seconds of wall time from the third step on, the GPU being the engine; memory is what torch had
reserved at most.
Correctness first: `bench_packing.py` and the tests marked `gpu` compare packed rows with single ones.

`--tiny` shrinks every shape and runs on the CPU: it proves the program, its figures mean nothing and are not recorded.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import arms
import torch
import transformers
from recording import Result, record
from skewed_rows import draw_rows

from finetune_api.kinds.finetunejob.spec import FineTuneJobSpec, Precision
from finetune_trainer import tasks
from finetune_trainer.model import load
from finetune_trainer.model import method as methods
from finetune_trainer.planning.memory import MOST_TOKENS

LENGTH, STEPS, WARM_UP, BATCH = 4096, 8, 2, 4
PEER_BATCH = 2
PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
"""Dense bfloat16 products per second: NVIDIA's data sheets."""
# Published configurations: https://huggingface.co/meta-llama/Llama-3.1-8B, .../Llama-3.2-1B, .../Qwen/Qwen2.5-7B.
SHAPES: dict[str, dict[str, Any]] = {
    "Llama 3.1 8B": {
        "model_type": "llama",
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128_256,
        "rope_theta": 500_000.0,
    },
    "Qwen 2.5 7B": {
        "model_type": "qwen2",
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152_064,
        "rope_theta": 1_000_000.0,
    },
    "Llama 3.2 1B": {
        "model_type": "llama",
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128_256,
        "tie_word_embeddings": True,
        "rope_theta": 500_000.0,
    },
}
TINY = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 512,
}
Case = tuple[str, str, str]
"""Shape, method, quantization."""
CASES: tuple[Case, ...] = (
    ("Llama 3.1 8B", "LoRA", "None"),
    ("Qwen 2.5 7B", "LoRA", "None"),
    ("Llama 3.1 8B", "LoRA", "NF4"),
    ("Llama 3.1 8B", "LoRA", "Int8"),
    ("Llama 3.2 1B", "Full", "None"),
)
ARMS = ("ours", "Trainer", "TRL")


class _Clock(transformers.TrainerCallback):
    """Takes the time between the ends of steps, the GPU's work included."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())


def save_base(folder: Path, shape: str, *, is_tiny: bool) -> None:
    """Write a base model's folder with random weights."""
    values = SHAPES[shape] | (TINY if is_tiny else {})
    config = transformers.AutoConfig.for_model(
        **values, max_position_embeddings=2 * LENGTH, pad_token_id=0, bos_token_id=1, eos_token_id=2
    )
    torch.manual_seed(arms.SEED)
    with torch.device("cuda" if torch.cuda.is_available() and not is_tiny else "cpu"):
        transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)


def load_subject(folder: Path, method: str, quantization: str, device: torch.device) -> tuple[Any, bool]:
    """Load the model as the train stage does; also say whether its products are autocast."""
    spec = FineTuneJobSpec.model_validate(
        arms.build_spec(BATCH).model_dump(by_alias=True)
        | {"method": {"kind": method, "quantization": quantization, "lora": {"rank": 16, "dropout": "0"}}}
    )
    task = tasks.find_preparation(spec.task)
    loaded = load.load_base(folder, spec, task=task, labels=[], precision=Precision.BFLOAT16, device=device)
    loaded.model.config.use_cache = False
    subject = methods.apply_method(loaded, spec, task)
    if quantization == "None":
        subject.to(device)
    return subject.train(), load.is_autocast(spec, Precision.BFLOAT16, task)


def count_flops(subject: Any, method: str, length: int) -> float:
    """Count the products of one token, forward and backward, attention included, two operations each.

    A frozen weight takes part in the forward pass and in the gradient of its input, a trained one also in its own
    gradient; causal attention sees half of the row on average.
    """
    embedding = subject.get_input_embeddings().weight.numel()
    # A quantized weight stores two elements per byte; its shape is what counts.
    base = sum(
        item.quant_state.shape.numel() if hasattr(item, "quant_state") and item.quant_state else item.numel()
        for item in subject.parameters()
    )
    trained = base if method == "Full" else methods.count_trainable(subject)
    config = subject.config
    attention = 4 * config.num_hidden_layers * config.hidden_size * length / 2
    frozen = base - trained - (0 if config.tie_word_embeddings else embedding)
    return 4 * max(0, frozen) + 6 * trained + 3 * attention


def train_alone(case: Case, arm: str, *, is_tiny: bool) -> dict[str, float]:
    """Train one arm and return tokens per second, peak memory in GiB and operations per token."""
    shape, method, quantization = case
    device = torch.device("cpu" if is_tiny else "cuda")
    length = 64 if is_tiny else LENGTH
    with tempfile.TemporaryDirectory() as name:
        save_base(Path(name) / "base", shape, is_tiny=is_tiny)
        subject, is_autocast = load_subject(Path(name) / "base", method, quantization, device)
        rows = draw_rows([length] * (BATCH * STEPS), subject.config.vocab_size, arms.SEED)
        trainer = _build(arm, subject, rows, Path(name), length=length, device=device, is_autocast=is_autocast)
        clock = _Clock()
        trainer.add_callback(clock)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        trainer.train()
        per_step = len(rows) * length / len(clock.ends)
        seconds = (clock.ends[-1] - clock.ends[WARM_UP - 1]) / (len(clock.ends) - WARM_UP)
        peak = torch.cuda.max_memory_reserved() if device.type == "cuda" else 0
        operations = count_flops(subject, method, length)
    return {"tokens_per_second": per_step / seconds, "gib": peak / 2**30, "flops": operations}


def _build(
    arm: str, subject: Any, rows: Any, scratch: Path, *, length: int, device: torch.device, is_autocast: bool
) -> transformers.Trainer:
    if arm == "ours":
        return arms.build_ours(
            subject,
            rows,
            scratch,
            batch_size=BATCH,
            tokens=MOST_TOKENS["cuda"],
            device=device.type,
            is_autocast=is_autocast,
        )
    changes = {"bf16": is_autocast, "use_cpu": device.type == "cpu", "gradient_accumulation_steps": BATCH // PEER_BATCH}
    if arm == "Trainer":
        return arms.build_hugging_face(subject, rows, scratch, batch_size=PEER_BATCH, **changes)
    return arms.build_trl(subject, rows, scratch, batch_size=PEER_BATCH, longest=length, **changes)


def _measure(case: Case, arm: str, *, is_tiny: bool) -> dict[str, float]:
    command = [sys.executable, __file__, "--alone", *case, arm, *(["--tiny"] if is_tiny else [])]
    ended = subprocess.run(command, check=False, capture_output=True, text=True)
    if ended.returncode != 0:
        if "OutOfMemoryError" in ended.stderr:
            return {"tokens_per_second": 0.0, "gib": float("inf"), "flops": 0.0}
        raise RuntimeError(ended.stderr[-3000:])
    figures: dict[str, float] = json.loads(ended.stdout.splitlines()[-1])
    return figures


def _build_results(case: Case, found: dict[str, dict[str, float]], peak: float | None) -> list[Result]:
    shape, method, quantization = case
    name = f"{shape}, {method}" + ("" if quantization == "None" else f" on {quantization}")
    ours = found["ours"]
    if not ours["tokens_per_second"]:
        raise RuntimeError(f"{name}: ours must fit into the card's memory; it ran out")
    results = []
    for arm in ARMS[1:]:
        if not found[arm]["tokens_per_second"]:
            print(f"{name}: {arm} ran out of memory")
            continue
        peer = found[arm]
        results.append(
            Result(f"{name}: {arm}", ours["tokens_per_second"], peer["tokens_per_second"], "tokens/s", 1.3, True)
        )
        results.append(Result(f"{name}: peak memory, {arm}", ours["gib"], peer["gib"], "GiB", 0.8))
    if case == CASES[0]:
        results.append(Result(f"{name}: against 12,500", ours["tokens_per_second"], 12_500, "tokens/s", 1.0, True))
    if peak is not None:
        share = ours["tokens_per_second"] * ours["flops"] / peak
        results.append(Result(f"{name}: share of the card's peak, against 40 %", share, 0.4, "", 1.0, True))
    return results


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="tiny shapes on the CPU; records nothing")
    parser.add_argument("--case", type=int, action="append", help="number of a case, from 0; several may be given")
    parser.add_argument("--alone", nargs=4, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.alone:
        *case, arm = chosen.alone
        print(json.dumps(train_alone(tuple(case), arm, is_tiny=chosen.tiny)))
        return
    if not chosen.tiny and not torch.cuda.is_available():
        raise SystemExit("bench_gpu.py must see a GPU; run it with --tiny to try it without one")
    card = "" if chosen.tiny else torch.cuda.get_device_name()
    peak = next((flops for name, flops in PEAK_FLOPS.items() if name in card), None)
    if card and peak is None:
        print(f"{card} must stand in PEAK_FLOPS for its share of the peak; that row is left out")
    results = []
    for number in chosen.case or range(len(CASES)):
        found = {arm: _measure(CASES[number], arm, is_tiny=chosen.tiny) for arm in ARMS}
        print(CASES[number], found)
        if not chosen.tiny:
            results += _build_results(CASES[number], found, peak)
    if results:
        record("gpu", results, ("torch", "transformers", "peft", "bitsandbytes", "trl"), machine=card)


if __name__ == "__main__":
    main()

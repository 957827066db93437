"""Peak memory of a LoRA training, libraries and weights included, against the Hugging Face Trainer.

A Llama-shaped model (hidden 512, 8 layers) with vocabularies of 16,384 and 128,256, its base in float32, Int8 and NF4;
one step of 8 rows of lognormal lengths up to 512 tokens. Each training runs in a fresh process; the peak is that of its
resident memory from the first step on. Correctness first: a step's loss and gradient are those of its rows one by one
(`bench_packing.py` measures that).
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import arms
import torch
import transformers
from recording import Result, record
from skewed_rows import draw_lengths, draw_rows

from finetune_api.kinds.finetunejob.spec import FineTuneJobSpec, Precision
from finetune_trainer import tasks
from finetune_trainer.model import load, method
from finetune_trainer.planning.memory import MOST_TOKENS

VOCABULARIES = (16_384, 128_256)
QUANTIZATIONS = ("None", "Int8", "NF4")
NUM_ROWS, LONGEST, BATCH = 8, 512, 8


def save_base(folder: Path, vocabulary: int) -> None:
    """Write the base model's folder."""
    torch.manual_seed(arms.SEED)
    config = transformers.LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=512,
        intermediate_size=1536,
        num_hidden_layers=8,
        num_attention_heads=8,
        max_position_embeddings=LONGEST,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)


def load_subject(folder: Path, quantization: str) -> Any:
    """Load the base and put the adapter on, as the train stage does; both arms train the same."""
    spec = FineTuneJobSpec.model_validate(
        arms.build_spec(BATCH).model_dump(by_alias=True)
        | {"method": {"kind": "LoRA", "quantization": quantization, "lora": {"rank": 16, "dropout": "0"}}}
    )
    task = tasks.find_preparation(spec.task)
    device = torch.device("cpu")
    torch.manual_seed(arms.SEED)
    loaded = load.load_base(folder, spec, task=task, labels=[], precision=Precision.FLOAT32, device=device)
    loaded.model.config.use_cache = False
    return method.apply_method(loaded, spec, task).train()


def run_alone(arm: str, folder: str, quantization: str) -> None:
    """Be the process of one training: print its peak as JSON."""
    subject = load_subject(Path(folder), quantization)
    rows = draw_rows(draw_lengths(NUM_ROWS, LONGEST, arms.SEED), subject.config.vocab_size, arms.SEED)
    with tempfile.TemporaryDirectory() as name:
        if arm == "ours":
            trainer: transformers.Trainer = arms.build_ours(
                subject, rows, Path(name), batch_size=BATCH, tokens=MOST_TOKENS["cpu"]
            )
        else:
            trainer = arms.build_hugging_face(subject, rows, Path(name), batch_size=BATCH)
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        trainer.train()
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(json.dumps({"mib": int(line.split()[1]) / 1024}))


def _measure(arm: str, folder: Path, quantization: str) -> float:
    command = [sys.executable, __file__, arm, str(folder), quantization]
    ended = subprocess.run(
        command, check=False, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "2"}
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    return float(json.loads(ended.stdout.splitlines()[-1])["mib"])


def main() -> None:
    """Measure and record."""
    results = []
    with tempfile.TemporaryDirectory() as name:
        for vocabulary in VOCABULARIES:
            folder = Path(name) / str(vocabulary)
            save_base(folder, vocabulary)
            for quantization in QUANTIZATIONS:
                ours, peer = (_measure(arm, folder, quantization) for arm in ("ours", "Trainer"))
                base = "float32" if quantization == "None" else quantization
                results.append(Result(f"LoRA on {base}, vocabulary of {vocabulary:,}", ours, peer, "MiB", 0.7))
    record("memory", results, ("torch", "transformers", "peft", "bitsandbytes"))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        run_alone(*sys.argv[1:])
    else:
        main()

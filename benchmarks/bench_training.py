"""Real tokens per CPU-second of whole training steps, against the Hugging Face Trainer and TRL's packing.

A Llama-shaped model of 16M parameters on 400 rows of lognormal lengths, and a real encoder (MiniLM) as a classifier on
rows as skewed; one thread, float32, fused AdamW everywhere. The arms take turns every few CPU-seconds. Correctness
first: a step's loss and gradient are those of its rows one by one (`bench_packing.py` measures that for each
architecture).
"""

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import arms
import torch
import transformers
from interleaving import Arm, run_interleaved
from recording import Result, record
from skewed_rows import describe_lengths, draw_lengths, draw_rows

from finetune_demo import datasets
from finetune_trainer.batches import sampler
from finetune_trainer.planning.memory import MOST_TOKENS

VOCABULARY, LONGEST, BATCH, NUM_LABELS = 8192, 1024, 8, 2
ENCODER_LONGEST = 512


def build_decoder() -> Any:
    """Build the Llama-shaped model, with the same weights for every arm."""
    torch.manual_seed(arms.SEED)
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=384,
        intermediate_size=1344,
        num_hidden_layers=6,
        num_attention_heads=6,
        max_position_embeddings=LONGEST,
        tie_word_embeddings=True,
        use_cache=False,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return transformers.LlamaForCausalLM._from_config(config, attn_implementation="sdpa").train()


def measure_decoder(num_rows: int, scratch: Path) -> list[Result]:
    """Compare whole training steps of the language model."""
    lengths = draw_lengths(num_rows, LONGEST, arms.SEED)
    rows = draw_rows(lengths, VOCABULARY, arms.SEED)
    print(describe_lengths(lengths))
    tokens = sum(lengths)
    ours, default, packed, packed_by_four = compared = [
        Arm(
            "ours",
            lambda: arms.build_ours(build_decoder(), rows, scratch, batch_size=BATCH, tokens=MOST_TOKENS["cpu"]),
            tokens,
        ),
        Arm("Trainer", lambda: arms.build_hugging_face(build_decoder(), rows, scratch, batch_size=BATCH), tokens),
        Arm("TRL, 1", lambda: arms.build_trl(build_decoder(), rows, scratch, batch_size=1, longest=LONGEST), tokens),
        Arm("TRL, 4", lambda: arms.build_trl(build_decoder(), rows, scratch, batch_size=4, longest=LONGEST), tokens),
    ]
    run_interleaved(compared)
    assert ours.steps == default.steps, "as many rows per step"
    return [
        _compare("decoder: Hugging Face Trainer, padded to the longest, batch 8", ours, default, 3.5),
        _compare("decoder: TRL SFT packing, batch 1", ours, packed, 1.2),
        _compare("decoder: TRL SFT packing, batch 4", ours, packed_by_four, 2.5),
    ]


def measure_encoder(num_rows: int, scratch: Path) -> list[Result]:
    """Compare whole training steps of a classifier on a real encoder."""
    lengths = draw_lengths(num_rows, ENCODER_LONGEST, arms.SEED + 1)
    print(describe_lengths(lengths))
    folder = _fetch_encoder(scratch)

    def build_encoder() -> Any:
        torch.manual_seed(arms.SEED)
        model = transformers.AutoModelForSequenceClassification.from_pretrained(
            folder, num_labels=NUM_LABELS, dtype=torch.float32, attn_implementation="sdpa"
        )
        return model.train()

    rows = draw_rows(lengths, transformers.AutoConfig.from_pretrained(folder).vocab_size, arms.SEED, NUM_LABELS)
    tokens = sum(lengths)

    def build_ours(*, is_packed: bool) -> transformers.Trainer:
        return arms.build_ours(
            build_encoder(),
            rows,
            scratch,
            batch_size=BATCH,
            tokens=MOST_TOKENS["cpu"],
            head=arms.CLASSIFIER,
            is_packed=is_packed,
        )

    packed, padded, default = compared = [
        Arm("packed", lambda: build_ours(is_packed=True), tokens),
        Arm("padded", lambda: build_ours(is_packed=False), tokens),
        Arm("Trainer", lambda: arms.build_hugging_face(build_encoder(), rows, scratch, batch_size=BATCH), tokens),
    ]
    run_interleaved(compared)
    assert packed.steps == padded.steps == default.steps, "as many rows per step"
    name = "Hugging Face Trainer, padded to the longest, batch 8"
    return [
        _compare(f"classifier: {name}", packed, default, 2.0),
        _compare(f"classifier of an architecture that is not packed: {name}", padded, default, 2.0),
        Result("padding where rows are not packed, against 3 %", _measure_padding(lengths), 0.03, "share", 1.0),
    ]


def _fetch_encoder(scratch: Path) -> Path:
    files = datasets.build_example_models("movie-sentiment", scratch)
    return next(path for key, path in files.items() if key.endswith("config.json")).parent


def _measure_padding(lengths: list[int]) -> float:
    order = sampler.build_order(lengths, BATCH, arms.SEED, 0, is_packed=False)
    padded = 0
    for start in range(0, len(order), BATCH):
        step = [lengths[row] for row in order[start : start + BATCH]]
        for positions in sampler.cut_micro_batches(step, MOST_TOKENS["cpu"], is_packed=False):
            padded += len(positions) * max(step[position] for position in positions)
    return 1 - sum(lengths) / padded


def _compare(name: str, ours: Arm, peer: Arm, least: float) -> Result:
    return Result(
        name, ours.tokens_per_second, peer.tokens_per_second, "real tokens per CPU-second", least, is_minimum=True
    )


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=400, help="rows to train on")
    chosen = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        results = measure_decoder(chosen.rows, Path(name)) + measure_encoder(chosen.rows, Path(name))
    record("training", results, ("torch", "transformers", "trl"))


if __name__ == "__main__":
    main()

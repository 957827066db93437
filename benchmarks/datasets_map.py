"""The peer of bench_prepare: Hugging Face datasets, as its documentation shows it, with two processes.

Usage: python datasets_map.py MODEL_FOLDER ROWS_JSONL OUTPUT_FOLDER. Tokenizes each text, ends it with the end-of-text
token, cuts it, summarizes the lengths and saves the rows as parquet. Prints one JSON object: wall seconds and
CPU-seconds of all processes, from the first row read to the last file written.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import datasets
import numpy
from transformers import AutoTokenizer

MAX_LENGTH = 2048


def main() -> None:
    """Map and save the rows."""
    folder, rows, output = map(Path, sys.argv[1:])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    end = tokenizer.eos_token_id

    def tokenize(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        encoded = tokenizer(batch["text"], return_attention_mask=False, return_token_type_ids=False)["input_ids"]
        ids = [[*tokens, end][:MAX_LENGTH] for tokens in encoded]
        return {"input_ids": ids, "length": [len(tokens) for tokens in ids]}

    output.mkdir()
    began, used = time.perf_counter(), sum(os.times()[:4])
    loaded = datasets.load_dataset("json", data_files=str(rows), split="train", cache_dir=str(output / "cache"))
    mapped = loaded.map(tokenize, batched=True, num_proc=2, remove_columns=["text"])
    lengths = numpy.sort(mapped.with_format("numpy")["length"][:])
    summary = {
        "rows": len(lengths),
        "tokens": int(lengths.sum()),
        "median": int(lengths[len(lengths) // 2]),
        "p95": int(lengths[len(lengths) * 95 // 100]),
        "histogram": numpy.histogram(lengths, 2 ** numpy.arange(12))[0].tolist(),
    }
    (output / "report.json").write_text(json.dumps(summary))
    mapped.to_parquet(output / "train.parquet")
    print(json.dumps({"wall": time.perf_counter() - began, "cpu": sum(os.times()[:4]) - used}))


if __name__ == "__main__":
    main()

"""Seconds and memory to prepare 1 GB of JSONL for CausalLM, against datasets' map with two processes.

Both read the same file, tokenize it with the same tokenizer, summarize the lengths and write parquet; ours also checks
every row, looks for duplicates, splits, and writes the labels. Usage: python bench_prepare.py [MEGABYTES [ROUNDS]].
Correctness first: a thousand rows, drawn from all, must have the same tokens on both sides.
"""

import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

import pyarrow.dataset
import transformers
from recording import Result, record

from finetune_demo import datasets, models

SEED = 13
CHECKED_ROWS = 1000
GIGABYTE = 1e9
# Characters of a row: median 1,100, mean 1,500, one of a hundred above 7,000.
LENGTH_MU, LENGTH_SIGMA = 7.0, 0.8
MAX_CHARACTERS = 100_000


@dataclass(frozen=True)
class Run:
    """What one side took: seconds, CPU-seconds, and bytes resident at the most in all its processes."""

    wall: float
    cpu: float
    resident: int


def _load_sentences(folder: Path) -> list[str]:
    """Return the texts of all examples: Bible passages, sentences about movies, definitions of nouns."""
    sentences: list[str] = []
    for example in ("domain-text", "movie-sentiment", "define-nouns"):
        for _, path in sorted(datasets.build_example_data(example, folder).items()):
            for line in path.read_text().splitlines():
                values = json.loads(line) if path.suffix == ".jsonl" else {"text": line}
                sentences.append(". ".join(str(value) for name, value in sorted(values.items()) if name != "label"))
    return sentences


def _write_rows(path: Path, sentences: list[str], size: int) -> int:
    """Write rows of sentences drawn with a seed until the file has `size` bytes; return how many."""
    draw = random.Random(SEED)  # noqa: S311 - the same file on every machine
    written = rows = 0
    with path.open("wb") as stream:
        while written < size:
            wanted = min(draw.lognormvariate(LENGTH_MU, LENGTH_SIGMA), MAX_CHARACTERS)
            parts: list[str] = []
            while wanted > 0:
                parts.append(draw.choice(sentences))
                wanted -= len(parts[-1]) + 1
            written += stream.write(json.dumps({"text": " ".join(parts)}, ensure_ascii=False).encode() + b"\n")
            rows += 1
    return rows


def _build_model(folder: Path) -> None:
    """Save the tokenizer of SmolLM2 beside a model with hardly any weights: only its shapes are looked at."""
    gguf = models.load_smollm2()[models.SMOLLM2_KEY]
    tokenizer = transformers.AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer.save_pretrained(folder)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=8192,
        eos_token_id=tokenizer.eos_token_id,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)


def _run(script: str, folder: Path, rows: Path, output: Path) -> Run:
    """Run one side and watch the memory of its processes."""
    shutil.rmtree(output, ignore_errors=True)
    command = [sys.executable, str(Path(__file__).parent / script), str(folder), str(rows), str(output)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(output.parent / "hf")}
    environment.pop("TOKENIZERS_PARALLELISM", None)
    peak = 0
    ended = threading.Event()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:

        def watch() -> None:
            nonlocal peak
            while not ended.wait(0.1):
                peak = max(peak, _measure_resident(process.pid))

        watcher = threading.Thread(target=watch)
        watcher.start()
        said, _ = process.communicate()
        ended.set()
        watcher.join()
    assert process.returncode == 0, said
    measured = json.loads(said.splitlines()[-1])
    return Run(measured["wall"], measured["cpu"], peak)


def _measure_resident(pid: int) -> int:
    """Return the bytes resident in a process and its children, each with what it shares with the others."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") + sum(_measure_resident(int(child)) for child in children)


def _load_tokens(paths: list[Path], chosen: list[int], *, is_ours: bool) -> dict[int, list[int]]:
    """Return the tokens of the chosen rows; the peer writes no row numbers, its rows are in their order."""
    found: dict[int, list[int]] = {}
    wanted, start = set(chosen), 0
    for batch in pyarrow.dataset.dataset(paths).to_batches(columns=["row", "input_ids"] if is_ours else ["input_ids"]):
        numbers = batch["row"].to_pylist() if is_ours else range(start, start + batch.num_rows)
        start += batch.num_rows
        found |= {row: batch["input_ids"][at].as_py() for at, row in enumerate(numbers) if row in wanted}
    return found


def _check_tokens(ours: Path, peer: Path, num_rows: int) -> None:
    chosen = random.Random(SEED).sample(range(num_rows), min(CHECKED_ROWS, num_rows))  # noqa: S311 - a sample
    left = _load_tokens([ours / "train.parquet", ours / "validation.parquet"], chosen, is_ours=True)
    right = _load_tokens([peer / "train.parquet"], chosen, is_ours=False)
    assert len(left) == len(chosen)
    assert left == right, "both sides must make the same tokens"


def _measure(folder: Path, size: int, rounds: int) -> list[Result]:
    model, rows = folder / "model", folder / "rows.jsonl"
    _build_model(model)
    num_rows = _write_rows(rows, _load_sentences(folder), size)
    gigabytes = rows.stat().st_size / GIGABYTE
    runs: dict[str, list[Run]] = {"local_prepare.py": [], "datasets_map.py": []}
    for number in range(rounds):
        # Neither side is always the first, whose reading warms the disk's cache.
        for script in sorted(runs, reverse=number % 2 == 0):
            runs[script].append(_run(script, model, rows, folder / script))
            print(script, runs[script][-1], flush=True)
        _check_tokens(folder / "local_prepare.py", folder / "datasets_map.py", num_rows)
    ours, peer = runs["local_prepare.py"], runs["datasets_map.py"]
    walls, cpus = [
        [statistics.median(getattr(run, name) for run in side) for side in (ours, peer)] for name in ("wall", "cpu")
    ]
    resident = max(run.resident for run in ours)
    return [
        Result("JSONL prepared", *(1e3 * gigabytes / seconds for seconds in walls), "MB/s", 1.0, is_minimum=True),
        Result("processor time", *(seconds / gigabytes for seconds in cpus), "s/GB", 1.0),
        Result("resident at the most, against 1 GB", resident / GIGABYTE, 1.0, "GB", 1.0),
    ]


def main() -> None:
    """Measure and record."""
    size = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    with tempfile.TemporaryDirectory() as name:
        results = _measure(Path(name), size * 10**6, rounds)
    record("prepare", results, ("datasets", "transformers", "tokenizers", "pyarrow"))


if __name__ == "__main__":
    main()

"""Our side of bench_prepare: what the prepare stage does between fetching and uploading, on local files.

Usage: python local_prepare.py MODEL_FOLDER ROWS_JSONL OUTPUT_FOLDER. Prints one JSON object: wall seconds and
CPU-seconds from the first row read to the last file written.
"""

import json
import os
import sys
import time
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "true"  # as the stage sets it

from finetune_api.kinds.finetunejob.spec import FineTuneJobSpec
from finetune_api.run import Stage
from finetune_trainer.data.sources import LocalFile
from finetune_trainer.model import facts as base_model
from finetune_trainer.model.tokenizer import load_tokenizer
from finetune_trainer.pod import imports
from finetune_trainer.stages import preflight, prepare


def main() -> None:
    """Prepare the rows."""
    folder, rows, output = map(Path, sys.argv[1:])
    spec = FineTuneJobSpec.model_validate(
        {
            "task": "CausalLM",
            "model": {"uri": "s3://models/base/"},
            "data": [{"name": "rows", "train": {"uri": f"s3://datasets/{rows.name}"}}],
            "training": {"maxLength": 2048},
            "output": {"uri": "s3://runs/prepare"},
            "resources": {"gpus": 0},
        }
    )
    imports.leave_out(imports.find_unneeded(Stage.PREPARE, spec))
    facts = base_model.load_facts(folder, None, spec.model)
    tokenizer = load_tokenizer(folder, None, spec.model)
    with preflight.inspect_behind(spec, folder, None) as structure:
        model = prepare.build_model(spec, facts, structure.wait(), tokenizer)
    output.mkdir()
    began, used = time.perf_counter(), time.process_time()
    files = {"train": [LocalFile(rows, rows.name)]}
    prepare.prepare_rows(spec, model, files, [], output)
    print(json.dumps({"wall": time.perf_counter() - began, "cpu": time.process_time() - used}))


if __name__ == "__main__":
    main()

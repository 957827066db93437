"""The peer of bench_startup: a plain transformers.Trainer script, as a user would write it, that stops after two steps.

Usage: python bare_trainer.py MODEL_FOLDER TRAIN_JSONL. Prints one line when the first optimizer step is done.
"""

import json
import sys
from pathlib import Path

from peft import LoraConfig, TaskType, get_peft_model
from torch.utils.data import Dataset
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)


class Rows(Dataset):  # type: ignore[type-arg]  # torch's Dataset is generic only for type checkers
    """Sentences with a label, tokenized when the script starts."""

    def __init__(self, path: Path, tokenizer: AutoTokenizer) -> None:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        encoded = tokenizer([row["sentence"] for row in rows], truncation=True, max_length=64)
        labels = {"negative": 0, "positive": 1}
        self.items = [
            {"input_ids": ids, "labels": labels[row["label"]]}
            for ids, row in zip(encoded["input_ids"], rows, strict=True)
        ]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, object]:
        return self.items[index]


class FirstStep(TrainerCallback):  # type: ignore[misc]  # transformers is untyped
    """Says when the first optimizer step is done."""

    def on_step_end(self, args: object, state: object, control: object, **_: object) -> None:  # noqa: ARG002 - the callback's form
        if state.global_step == 1:  # type: ignore[attr-defined]  # a TrainerState
            print("first step done", flush=True)


def main() -> None:
    """Train two steps."""
    folder, rows = Path(sys.argv[1]), Path(sys.argv[2])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2)
    model = get_peft_model(model, LoraConfig(task_type=TaskType.SEQ_CLS, r=16, target_modules="all-linear"))
    arguments = TrainingArguments(
        output_dir="/tmp/bare-trainer",  # noqa: S108 - nothing is saved
        per_device_train_batch_size=16,
        max_steps=2,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        dataloader_pin_memory=False,
    )
    Trainer(
        model=model,
        args=arguments,
        train_dataset=Rows(rows, tokenizer),
        data_collator=DataCollatorWithPadding(tokenizer),
        callbacks=[FirstStep()],
    ).train()


if __name__ == "__main__":
    main()

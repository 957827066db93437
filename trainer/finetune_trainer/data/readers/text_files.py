"""Plain text: each line of a .txt is a row."""

from collections.abc import Iterator
from pathlib import Path

from finetune_trainer.data.findings import Findings
from finetune_trainer.data.readers import text_lines
from finetune_trainer.data.readers.record import Record


def read_lines(path: Path, name: str, findings: Findings) -> Iterator[Record]:
    """Each line is a sample in the column `text`; empty ones are left out."""
    for number, line in text_lines.iterate_lines(path, name, findings):
        if text := line.strip("\r\n"):
            yield Record(f"{name} line {number}", {"text": text})

"""The table of the sweep, `tests/trainer/architectures/endings.yaml`: how every cell has to end.

`types` says by model type and purpose `trained`, or the name of a refusal; where methods differ, by method. `refusals`
says of each which words of the prepare stage it stands for, and what docs/models.md says of it. `left_out` are types
without a tiny model here, with the reason. `known` are faults that aren't mended yet: where they show, by the words
they show with; any other fault of the same cell still fails.
"""

import fnmatch
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tiny_architectures
import yaml
from architecture_cells import METHODS, PURPOSES, Cell, Outcome

PATH = Path(__file__).parents[1] / "trainer" / "architectures" / "endings.yaml"
TRAINED = "trained"
SAMPLE_SIZE = 20
SAMPLE_SEED = 70


@dataclass(frozen=True, slots=True)
class Known:
    """A fault that isn't mended yet."""

    cells: str
    """Pattern of the cells it may show in, as a shell has them."""
    words: str
    """Part of what is said of it."""

    def covers(self, cell: Cell, detail: str) -> bool:
        """Tell whether this is what a cell suffers from."""
        return fnmatch.fnmatchcase(str(cell), self.cells) and self.words in detail


@dataclass(frozen=True, slots=True)
class Table:
    """The file, read."""

    endings: dict[Cell, str]
    refusals: dict[str, str]
    """Words in the message of the prepare stage, by the name of the refusal."""
    known: list[Known]
    left_out: dict[str, str]


def load_table() -> Table:
    """Read the table.

    Raises:
        KeyError, ValueError: it names a method, a refusal or a cell that isn't there.
    """
    content = yaml.safe_load(PATH.read_text(encoding="utf-8"))
    endings = dict(_iterate(content["types"]))
    refusals = {name: item["words"] for name, item in content["refusals"].items()}
    if unknown := {ending for ending in endings.values() if ending != TRAINED and ending not in refusals}:
        raise ValueError(f"{PATH.name}: refusals must name {', '.join(sorted(unknown))}")
    known = [Known(**item) for item in content["known"]]
    return Table(endings, refusals, known, content["left_out"])


def _iterate(types: dict[str, Any]) -> Iterator[tuple[Cell, str]]:
    for model_type, purposes in types.items():
        for purpose in PURPOSES:
            chosen = purposes[purpose]
            if isinstance(chosen, dict) and set(chosen) != set(METHODS):
                raise ValueError(f"{PATH.name}: {model_type}.{purpose} must name each of {', '.join(METHODS)}")
            for method in METHODS:
                yield Cell(model_type, purpose, method), chosen[method] if isinstance(chosen, dict) else chosen


def choose_sample(table: Table) -> list[Cell]:
    """Choose cells so that every kind of tokenizer, every method for every purpose and every refusal is among them."""
    cells = sorted(table.endings)
    random.Random(SAMPLE_SEED).shuffle(cells)
    chosen: list[Cell] = []
    seen: set[tuple[str, ...]] = set()
    for cell in cells:
        ending = table.endings[cell]
        marks: set[tuple[str, ...]] = {("ending", ending)}
        if ending == TRAINED:
            marks |= {(cell.purpose, cell.method), ("tokenizer", tiny_architectures.choose_tokenizer(cell.model_type))}
        if marks - seen:
            chosen.append(cell)
            seen |= marks
    trained = [cell for cell in cells if table.endings[cell] == TRAINED and cell not in chosen]
    return sorted([*chosen, *trained[: max(0, SAMPLE_SIZE - len(chosen))]])


def check_ending(table: Table, cell: Cell, outcome: Outcome) -> None:
    """Assert that a cell has ended as it has to, or suffers from nothing but what is known."""
    wanted = table.endings[cell]
    new = [detail for detail in outcome.details if not any(item.covers(cell, detail) for item in table.known)]
    if outcome.details and not new:
        return
    told = f"{cell} must end as {wanted}; it ended as {outcome.ending}: {'; '.join(new)}"
    if wanted == TRAINED:
        assert outcome.ending == TRAINED, told
    else:
        assert outcome.ending == "refused", told
        assert table.refusals[wanted] in outcome.details[0], told

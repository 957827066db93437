"""Writes what a benchmark measured: a table on screen and benchmarks/results/<name>.json.

Every row compares our figure with a peer's, measured side by side in the same run; a ratio travels between machines,
seconds do not.
"""

import datetime
import json
import platform
import sys
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Result:
    """One comparison. `ratio` is ours / peer; `goal` is the largest ratio that meets the claim."""

    name: str
    ours: float
    peer: float
    unit: str
    goal: float

    @property
    def ratio(self) -> float:
        return self.ours / self.peer

    @property
    def met(self) -> bool:
        return self.ratio <= self.goal


def record(benchmark: str, results: list[Result], libraries: tuple[str, ...]) -> None:
    """Print the results and write them with command, versions and date."""
    versions = {name: metadata.version(name) for name in libraries} | {"python": platform.python_version()}
    table = Table(title=benchmark, title_justify="left")
    for column in ("name", "ours", "peer", "unit", "ratio", "goal", "met"):
        table.add_column(column)
    rows = []
    for result in results:
        table.add_row(
            result.name,
            f"{result.ours:.2f}",
            f"{result.peer:.2f}",
            result.unit,
            f"{result.ratio:.2f}",
            f"≤ {result.goal}",
            "yes" if result.met else "no",
        )
        rows.append(
            asdict(result)
            | {
                "ratio": round(result.ratio, 3),
                "met": result.met,
                "command": f"python {Path(sys.argv[0]).name}",
                "versions": versions,
                "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            }
        )
    Console().print(table)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{benchmark}.json").write_text(json.dumps(rows, indent=2) + "\n")

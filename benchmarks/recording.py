"""Writes what a benchmark measured: a table on screen and benchmarks/results/<name>.json.

Every row compares our figure with a peer's, measured side by side in the same run; a ratio travels between machines,
seconds do not. `make crd` puts the files of benchmarks/results into docs/performance.md.
"""

import datetime
import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Result:
    """One comparison.

    Attributes:
        name: what was compared with what, in words a reader of docs/performance.md understands.
        ours: our figure, in `unit`.
        peer: the other one's.
        unit: of both.
        limit: of ours / peer.
        is_minimum: the limit is the least ratio that meets the claim; else the largest.
    """

    name: str
    ours: float
    peer: float
    unit: str
    limit: float
    is_minimum: bool = False

    @property
    def ratio(self) -> float:
        return self.ours / self.peer

    @property
    def goal(self) -> str:
        return f"{'≥' if self.is_minimum else '≤'} {self.limit:g}"

    @property
    def met(self) -> bool:
        return self.ratio >= self.limit if self.is_minimum else self.ratio <= self.limit


def record(benchmark: str, results: Sequence[Result], libraries: Sequence[str], machine: str = "") -> None:
    """Print the results and write them with command, versions, machine and date.

    Args:
        benchmark: name of the file.
        results: to write.
        libraries: distributions whose versions matter.
        machine: what it ran on, a graphics card for example; empty: the processor and its cores.
    """
    versions = {name: metadata.version(name) for name in libraries} | {"python": platform.python_version()}
    table = Table(title=benchmark, title_justify="left")
    for column in ("name", "ours", "peer", "unit", "ratio", "goal", "met"):
        table.add_column(column)
    rows = []
    for result in results:
        figures = (f"{result.ours:.4g}", f"{result.peer:.4g}", result.unit, f"{result.ratio:.3g}", result.goal)
        table.add_row(result.name, *figures, "yes" if result.met else "no")
        measured = asdict(result)
        del measured["limit"], measured["is_minimum"]
        rows.append(
            measured
            | {
                "ratio": float(f"{result.ratio:.3g}"),
                "goal": result.goal,
                "met": result.met,
                "command": " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
                "versions": versions,
                "machine": machine or describe_machine(),
                "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            }
        )
    Console(width=180).print(table)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{benchmark}.json").write_text(json.dumps(rows, indent=2, ensure_ascii=False) + "\n")


def describe_machine() -> str:
    """Name the processor and how many of its cores this process may use."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine()
    )
    return f"{len(os.sched_getaffinity(0))} cores of {model}"

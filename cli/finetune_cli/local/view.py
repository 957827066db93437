"""What a local run shows: progress while it runs; at the end figures, model and warnings, or why there are none."""

from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from finetune_api import redaction, wording
from finetune_api.kinds.finetunejob.status import Metric
from finetune_api.run import Stage, TerminationMessage
from finetune_cli.local import inputs
from finetune_cli.local.figures import Figures
from finetune_cli.local.stages import Ended, LocalRun

_MODEL_CARD_HINT = "its README.md shows how to load it"


class ProgressView:
    """A bar per stage on a terminal; elsewhere a line per phase."""

    def __init__(self, console: Console) -> None:
        self._console = console
        stage, text = TextColumn("{task.description:<8}"), TextColumn("{task.fields[text]}")
        bars = Progress(stage, BarColumn(), text, TimeElapsedColumn(), console=console)
        self._bars = bars if console.is_terminal else None
        self._tasks: dict[Stage, TaskID] = {}
        self._said = ""

    def __enter__(self) -> "ProgressView":
        if self._bars:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars:
            self._bars.stop()

    def show(self, stage: Stage, found: Figures) -> None:
        """Show one reading; an empty one only says that the stage runs."""
        text = " ".join(word for word in (found.phase, _describe_step(found)) if word)
        if self._bars is None:
            if found.phase and (line := f"{stage}: {found.phase}") != self._said:
                self._said = line
                self._console.print(line, highlight=False)
            return
        if stage not in self._tasks:
            for task in self._tasks.values():
                self._bars.update(task, total=1, completed=1, text="done")
                self._bars.stop_task(task)
            self._tasks[stage] = self._bars.add_task(stage, total=None, text="")
        if text:
            total = found.total_steps or None
            self._bars.update(self._tasks[stage], total=total, completed=found.step, text=text)


def _describe_step(found: Figures) -> str:
    if not found.total_steps or not found.step:
        return ""
    loss = "" if found.loss is None else f", loss {found.loss:.4f}"
    return f"{found.step}/{found.total_steps}{loss}"


def print_success(console: Console, local: LocalRun, ended: Ended) -> None:
    """Print the metrics of base and tuned model, where the model lies, and all warnings."""
    seconds = ", ".join(f"{stage} {spent:.0f} s" for stage, spent in ended.seconds.items())
    console.print(Text.assemble((local.name, "bold"), f" is tuned: {seconds}"))
    if ended.message.metrics is not None:
        console.print(build_table(ended.message.metrics.base, ended.message.metrics.tuned))
    if ended.message.artifacts_uri:
        path = inputs.find_path(local.folder, ended.message.artifacts_uri)
        _print(console, "model", f"{path} ({_MODEL_CARD_HINT})")
    for warning in dict.fromkeys([*ended.prepared.warnings, *ended.message.warnings]):
        _print(console, "warning", warning)


def print_failure(console: Console, message: TerminationMessage, log: Path) -> None:
    """Print why a stage ended: reason, message, remedy, and where more stands."""
    console.print(Text.assemble((f"{message.stage} failed: {message.reason}", "bold red")))
    for name, text in (("message", message.message), ("remedy", message.remedy), ("log", str(log))):
        if text:
            _print(console, name, text)


def build_table(base: list[Metric], tuned: list[Metric]) -> Table:
    """Build a row per metric and split, the base model's figure beside the tuned one's."""
    table = Table("metric", "rows", box=None)
    table.add_column("base", justify="right")
    table.add_column("tuned", justify="right")
    before = {(item.name, item.split): item.value for item in base}
    for item in tuned:
        table.add_row(item.name, item.split or "", before.get((item.name, item.split), ""), item.value)
    return table


def _print(console: Console, name: str, text: str) -> None:
    """Print a named text; it may quote files of strangers, so nothing in it reaches the terminal as a command."""
    shown = wording.escape_controls(redaction.scrub_text(text))
    console.print(Text.assemble((f"{name}: ", "bold"), shown), soft_wrap=True)

"""What the demo shows people: a live table of the runs, then base → tuned with the addresses of the results."""

from collections.abc import Mapping
from pathlib import Path

from rich.console import Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from finetune_api.kinds.finetunejob.status import ConditionType, FineTuneJobStatus, Metric, Phase
from finetune_api.kinds.status_conditions import find_condition

_COLOURS = {Phase.SUCCEEDED: "green", Phase.FAILED: "red", Phase.TRAINING: "cyan", Phase.VALIDATING: "cyan"}


def build_watch_table(statuses: Mapping[str, FineTuneJobStatus], steps: Mapping[str, float], title: str) -> Table:
    """Show each run as `kubectl get finetunejobs` would, with a bar.

    Args:
        statuses: by job name.
        steps: share of optimizer steps done, 0 to 1, by job name, as Prometheus scraped it from the trainers.
        title: above the table.
    """
    table = Table(title=title, title_justify="left", expand=False)
    for column in ("name", "phase", "progress", "attempts", "reason"):
        table.add_column(column, no_wrap=column == "name")
    for name, status in sorted(statuses.items()):
        ready = find_condition(status.conditions, ConditionType.READY)
        phase = status.phase or Phase.PENDING
        table.add_row(
            name,
            Text(phase, style=_COLOURS.get(phase, "")),
            ProgressBar(total=1.0, completed=_share(status, steps.get(name, 0.0)), width=20),
            str(status.attempt_count),
            ready.reason if ready else "",
        )
    return table


def _share(status: FineTuneJobStatus, steps: float) -> float:
    if status.phase == Phase.SUCCEEDED:
        return 1.0
    reported = status.progress.percent / 100 if status.progress else 0.0
    return max(reported, 0.99 * steps if status.phase == Phase.TRAINING else 0.0)


def build_result_table(statuses: Mapping[str, FineTuneJobStatus], baselines: Mapping[str, float]) -> Group:
    """Show base → tuned on the same rows, with TF-IDF beside where it was measured, and where the results lie."""
    table = Table(title="base → tuned", title_justify="left")
    for column in ("run", "metric", "rows", "base", "tuned", "TF-IDF + regression"):
        table.add_column(column, no_wrap=column == "run")
    addresses = Table(show_header=False, box=None)
    addresses.add_column(no_wrap=True)
    addresses.add_column(overflow="fold")
    for name, status in sorted(statuses.items()):
        addresses.add_row(name, _describe_place(status))
        if status.metrics is None or not status.metrics.tuned:
            continue
        shown = _choose_metric(status.metrics.tuned)
        base = next((item for item in status.metrics.base if item.name == shown.name), None)
        table.add_row(
            name,
            shown.name,
            f"{_count_rows(status, shown)} {shown.split}",
            _shorten(base.value) if base else "-",
            _shorten(shown.value),
            f"{baselines[name]:.3f}" if name in baselines else "",
        )
    return Group(table, addresses)


def build_next_steps(kubeconfig: Path, namespace: str, prometheus_url: str) -> str:
    """Say how to look further and how to clean up."""
    return "\n".join(
        (
            "Look further:",
            f"  export KUBECONFIG={kubeconfig}",
            f"  .venv/bin/kubectl get finetunejobs -n {namespace} -o wide",
            f"  .venv/bin/kubectl describe finetunejob movie-sentiment -n {namespace}",
            f"  Prometheus: {prometheus_url}",
            "Remove everything: make down",
        )
    )


def _choose_metric(metrics: list[Metric]) -> Metric:
    preferred = ("accuracy", "perplexity")
    return next((item for name in preferred for item in metrics if item.name == name), metrics[0])


def _count_rows(status: FineTuneJobStatus, metric: Metric) -> int:
    if status.data is None:
        return 0
    return status.data.test_rows if metric.split == "test" else status.data.validation_rows


def _describe_place(status: FineTuneJobStatus) -> str:
    if status.artifacts is not None:
        return status.artifacts.uri
    if status.failure is not None:
        return f"{status.failure.reason}: {status.failure.message} {status.failure.remedy}"
    return "not finished"


def _shorten(value: str) -> str:
    return f"{float(value):.3f}"

"""`python -m finetune_demo up | build | down`: the examples on a real Kubernetes on this machine.

Reads as the list of what a platform team and a data scientist do, in their order. Everything is idempotent: a second
`up` builds nothing that is unchanged and leaves finished runs alone.
"""

from pathlib import Path
from typing import Annotated

import rich
import typer
import yaml
from rich.live import Live

from finetune_api.kinds.finetunejob.status import FineTuneJobStatus, Phase
from finetune_demo import baseline, buckets, datasets, installation, monitoring, report, runs, sources
from finetune_devcluster import api_client, cluster, errors, leftovers, machine, progress

NAME = "finetune"
NAMESPACE = "demo"
DEADLINE_SECONDS = 3600.0
"""For all runs together; five examples take about ten minutes on two cores."""

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
Examples = Annotated[list[str] | None, typer.Argument(help=f"any of {', '.join(datasets.EXAMPLES)}; all by default")]


@app.command()
def up(examples: Examples = None) -> None:
    """Start the cluster, install the operator, run the examples and show what came out."""
    names = examples or list(datasets.EXAMPLES)
    steps = progress.Steps()
    machine.set_up(steps, install=True)
    running = cluster.start(NAME, "node", steps=steps)
    built = installation.build_images(running, steps)
    installation.install_operator(running, built, steps)
    prometheus_url = monitoring.start(running, steps)
    files = _upload(running, names, steps)
    statuses = _run(running, names, prometheus_url)
    baselines = _measure_baselines(names, files)
    rich.print(report.build_result_table(statuses, baselines))
    rich.print(report.build_next_steps(running.kubeconfig, NAMESPACE, prometheus_url))
    if any(status.phase != Phase.SUCCEEDED for status in statuses.values()):
        raise typer.Exit(1)


@app.command()
def build() -> None:
    """Build both images into the registry of the cluster."""
    steps = progress.Steps()
    machine.set_up(steps, install=True)
    running = cluster.start(NAME, "node", steps=steps)
    built = installation.build_images(running, steps)
    steps.say(f"{built.operator}\n{built.trainer}")


@app.command()
def down() -> None:
    """Remove the cluster and everything it made on this machine; built images and downloads stay in the cache."""
    cluster.stop(NAME, steps=progress.Steps())
    if left := leftovers.find_leftovers(NAME):
        raise errors.DevclusterError(f"cluster {NAME} must leave nothing; end or remove by hand: {', '.join(left)}")


def _upload(running: cluster.Cluster, names: list[str], steps: progress.Steps) -> dict[str, Path]:
    """Fetch data and base models, make the namespace and put everything into S3."""
    folder = sources.cache_directory() / "examples"
    files: dict[str, Path] = {}
    with steps.step("fetch data and base models"):
        for name in names:
            files |= datasets.build_example_data(name, folder) | datasets.build_example_models(name, folder)
    with steps.step("upload them to S3"):
        installation.make_namespace(running, NAMESPACE)
        client = buckets.connect(installation.require_s3(running))
        buckets.make_buckets(client)
        buckets.upload_files(client, files)
    return files


def _run(running: cluster.Cluster, names: list[str], prometheus_url: str) -> dict[str, FineTuneJobStatus]:
    """Apply the examples' manifests and show the runs until all have ended."""
    with api_client.connect(running.kubeconfig) as client, Live(refresh_per_second=2) as live:
        for name in names:
            manifest = yaml.safe_load((installation.ROOT / "examples" / name / "job.yaml").read_text())
            runs.apply_run(client, manifest)

        def show(statuses: dict[str, FineTuneJobStatus]) -> None:
            shares = monitoring.fetch_step_shares(prometheus_url, NAMESPACE)
            live.update(report.build_watch_table(statuses, shares, f"kubectl get finetunejobs -n {NAMESPACE} --watch"))

        return runs.wait_until(client, NAMESPACE, names, deadline_seconds=DEADLINE_SECONDS, show=show)


def _measure_baselines(names: list[str], files: dict[str, Path]) -> dict[str, float]:
    """TF-IDF with logistic regression on the same rows, for the classification examples."""
    movies = [name for name in names if datasets.EXAMPLES[name].dataset == "movies"]
    if not movies:
        return {}
    accuracy = baseline.tfidf_accuracy(files["datasets/movies/train.jsonl"], files["datasets/movies/test.jsonl"])
    return dict.fromkeys(movies, accuracy)


def main() -> None:
    """Run a command; what a user can mend is said without a traceback."""
    try:
        app()
    except (errors.DevclusterError, sources.SourceUnavailableError, TimeoutError) as error:
        rich.print(f"[red]{error}")
        raise SystemExit(1) from error


if __name__ == "__main__":
    main()

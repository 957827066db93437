"""`python -m finetune_devcluster up | down | status | kubeconfig`: a real Kubernetes on this machine.

Only this module prints results and ends the process. Everything it can do is a function of `cluster`, so tests and the
demo call that instead.
"""

from __future__ import annotations

import signal
import sys
from typing import Annotated

import rich
import rich.table
import typer

from finetune_devcluster import cluster, errors, leftovers, machine, progress, prometheus, state

app = typer.Typer(
    no_args_is_help=True,
    help="A real Kubernetes on this machine, without Docker.",
    add_completion=False,
    pretty_exceptions_enable=False,
)

Name = Annotated[str, typer.Option(help="Which cluster; several run side by side.")]
DEFAULT_NAME = "finetune"


@app.command()
def up(
    name: Name = DEFAULT_NAME,
    level: Annotated[
        str, typer.Option(help="`node` runs pods and needs root; `control-plane` needs neither root nor containerd.")
    ] = "node",
    with_prometheus: Annotated[
        bool, typer.Option("--prometheus", help="Also start Prometheus, which scrapes ports named `metrics`.")
    ] = False,
    install: Annotated[
        bool, typer.Option(help="As root, install what is missing with apt-get; otherwise only say what to install.")
    ] = True,
) -> None:
    """Start a cluster, or check that it runs."""
    if level not in ("control-plane", "node"):
        raise typer.BadParameter(f"--level ({level}) must be control-plane or node")
    chosen: state.Level = "node" if level == "node" else "control-plane"
    steps = progress.Steps()
    running = cluster.start(name, chosen, steps=steps, install=install)
    if with_prometheus:
        steps.say(f"Prometheus answers at {prometheus.start(name)}")
    steps.say(f"cluster {name} is up; use it with:")
    steps.say(f"export KUBECONFIG={running.kubeconfig}")


@app.command()
def setup(
    install: Annotated[
        bool, typer.Option(help="As root, install what is missing with apt-get; otherwise only say what to install.")
    ] = True,
) -> None:
    """Install what every level needs and build the Kubernetes programs, so that later starts take seconds."""
    machine.set_up(progress.Steps(), install=install)


@app.command()
def down(name: Name = DEFAULT_NAME) -> None:
    """Remove a cluster and everything it made on this machine."""
    cluster.stop(name, steps=progress.Steps())
    if left := leftovers.find_leftovers(name):
        raise errors.DevclusterError(f"cluster {name} must leave nothing; end or remove by hand:\n" + "\n".join(left))


@app.command()
def status() -> None:
    """List the clusters and say whether they work."""
    table = rich.table.Table("name", "level", "state", "API server")
    for name in state.list_names():
        known = state.load_state(name)
        if known is None:
            table.add_row(name, "", "broken: run down", "")
            continue
        condition = "running" if cluster.is_healthy(known) else "broken: run up or down"
        table.add_row(name, known.level, condition, known.api_url)
    rich.print(table)


@app.command()
def kubeconfig(name: Name = DEFAULT_NAME) -> None:
    """Print the path of the kubeconfig, for `export KUBECONFIG=$(…)`."""
    typer.echo(cluster.load(name).kubeconfig)


def main() -> None:
    """Run the command line; a known error is one message and exit code 1."""
    # A polite end of the driver (a closed terminal, a CI time limit) must clean up as Ctrl-C does. So must Ctrl-C
    # itself where a shell started this in the background, which has it ignored.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        app()
    except (errors.DevclusterError, ValueError) as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()

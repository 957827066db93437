"""Charts, installed by the Helm that is built with the cluster's programs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finetune_devcluster import binaries, commands, progress

_WAIT = "180s"  # pulling the operator's image and its leader election take about 10 s (a guess); a slow machine more


def install_chart(
    kubeconfig: Path,
    chart_dir: Path,
    release: str,
    namespace: str,
    values: Mapping[str, Any] | None = None,
    *,
    steps: progress.Steps | None = None,
) -> None:
    """Install or upgrade the chart in `chart_dir` and wait until what it made is ready.

    Args:
        kubeconfig: The cluster.
        chart_dir: Folder with Chart.yaml.
        release: Name of the release.
        namespace: Where to install; created when it is not there.
        values: Set on top of the chart's own values.
        steps: Where to show what is done; silent by default.

    Raises:
        CommandError: the chart is wrong, or its objects were not ready in time.
    """
    steps = steps or progress.Steps(quiet=True)
    helm = binaries.build(steps) / "helm"
    with steps.step(f"install the chart {chart_dir.name}"):
        commands.run(
            [
                *(str(helm), "upgrade", release, str(chart_dir), "--install", "--create-namespace"),
                *(f"--namespace={namespace}", f"--kubeconfig={kubeconfig}", "--wait", f"--timeout={_WAIT}"),
                "--values=-",
            ],
            # Over standard input: values may hold credentials, and command lines are public.
            text=json.dumps(dict(values or {})),
        )


def uninstall_chart(kubeconfig: Path, release: str, namespace: str) -> None:
    """Remove a release and wait until what it made is gone; CRDs stay, as Helm always leaves them.

    Raises:
        CommandError: there is no such release, or its objects stayed.
    """
    helm = binaries.build(progress.Steps(quiet=True)) / "helm"
    commands.run(
        [
            *(str(helm), "uninstall", release, f"--namespace={namespace}", f"--kubeconfig={kubeconfig}"),
            *("--wait", f"--timeout={_WAIT}"),
        ]
    )

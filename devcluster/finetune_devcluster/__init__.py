"""The workbench: a real Kubernetes on one machine, for tests and the demo.

Knows Kubernetes and nothing of what is tested on it. Read `cluster` first: start, load and stop. A node-level cluster
is put together in `node_level`; images for it are built by `images`, and the chart is installed by `helm`.
"""

from __future__ import annotations

from finetune_devcluster.errors import DevclusterError, MissingProgramError

__all__ = ["DevclusterError", "MissingProgramError"]

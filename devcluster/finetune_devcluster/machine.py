"""Everything this package needs of a machine, checked or installed in one go, before the first cluster starts.

Tests and the demo call it so that a fresh machine is ready after one command. Must never install without root, nor
anything that was not asked for by name.
"""

from __future__ import annotations

from finetune_devcluster import binaries, images, node_level, programs, progress, prometheus


def set_up(steps: progress.Steps, *, install: bool) -> None:
    """Make sure that clusters of every level, images and Prometheus can start, and build the Kubernetes programs.

    Args:
        steps: Where to show what is done.
        install: With root, install Debian packages for what is missing instead of raising.

    Raises:
        MissingProgramError: something is missing; the error carries the command that installs it.
        CommandError: the build of the Kubernetes programs failed.
    """
    node_level.check_machine(install=install)
    programs.require_programs([*images.PROGRAMS, *prometheus.PROGRAMS], install=install)
    binaries.build(steps, install=install)

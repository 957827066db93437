"""Fixtures for tests against real servers: an S3 server, a Kubernetes control plane, a whole one-node cluster.

Each starts on first use and once per test run, also when the run has several workers. What a level needs and the
machine lacks makes the test fail where `CI` is set and skip elsewhere, in both cases with the command that installs it.
Nothing here needs a tool, or more than pytest, at import.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from finetune_devcluster import cluster, s3, state

# All clusters of test runs begin with it, so that a later run can remove what a killed one left.
RUN_PREFIX = "test-"


@contextlib.contextmanager
def missing_programs_skip() -> Iterator[None]:
    """Turn a missing program into a skip on a laptop and into a failure in CI."""
    from finetune_devcluster import errors

    try:
        yield
    except errors.MissingProgramError as error:
        if os.environ.get("CI"):
            pytest.fail(f"CI must have every level: {error}")
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[s3.S3Server]:
    """A real S3 server on loopback, alone: no root, no cluster. `.add_identity` makes users with fewer rights."""
    from finetune_devcluster import s3

    directory: Path = tmp_path_factory.mktemp("s3")
    with missing_programs_skip(), s3.start_s3(directory) as server:
        yield server


@pytest.fixture(scope="session")
def control_plane() -> Iterator[cluster.Cluster]:
    """A real API server with controllers and scheduler but no node, shared by the test run."""
    with shared_cluster("control-plane") as running:
        yield running


@pytest.fixture(scope="session")
def node_cluster() -> Iterator[cluster.Cluster]:
    """A whole cluster that runs pods, with `.s3` and `.registry`, shared by the test run.

    `FINETUNE_NODE_CLUSTER` names a cluster that runs already, by its name or by the path of its kubeconfig; it is used
    and left as it is.
    """
    if name := os.environ.get("FINETUNE_NODE_CLUSTER"):
        from finetune_devcluster import cluster

        yield cluster.use_existing(Path(name)) if os.sep in name else cluster.load(name)
    else:
        with shared_cluster("node") as running:
            yield running


@pytest.fixture
def node_namespace(node_cluster: cluster.Cluster) -> Iterator[str]:
    """A fresh namespace of the cluster that runs pods; yields its name."""
    with fresh_namespace(node_cluster.kubeconfig) as name:
        yield name


@pytest.fixture
def namespace(control_plane: cluster.Cluster) -> Iterator[str]:
    """A fresh namespace of the control plane; yields its name."""
    with fresh_namespace(control_plane.kubeconfig) as name:
        yield name


@contextlib.contextmanager
def shared_cluster(level: state.Level, purpose: str = "") -> Iterator[cluster.Cluster]:
    """Start the cluster of this test run at `level`, or join it; the last worker to leave stops it.

    Args:
        level: What the tests need.
        purpose: Gives tests that would disturb all others a cluster of their own.
    """
    from finetune_devcluster import cache, cluster

    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", f"{os.getpid()}")[:12]
    name = f"{RUN_PREFIX}{purpose or level}-{run}"
    remove_abandoned_clusters(name)
    users = cache.cache_directory() / "locks" / f"users-{name}"
    users.parent.mkdir(parents=True, exist_ok=True)
    with users.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        with missing_programs_skip():
            running = cluster.start(name, level)
        try:
            yield running
        finally:
            # The kernel gives up the shared lock before it tries the other: of two that try at once, one gets it.
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                cluster.stop(name)
                users.unlink()


def remove_abandoned_clusters(current: str) -> None:
    """Stop the clusters of test runs that were killed: nobody holds the lock of their users."""
    from finetune_devcluster import cache, cluster, state

    for name in state.list_names():
        users = cache.cache_directory() / "locks" / f"users-{name}"
        if name.startswith(RUN_PREFIX) and name != current and users.exists():
            with users.open("w") as file, contextlib.suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                cluster.stop(name)
                users.unlink()


@contextlib.contextmanager
def fresh_namespace(kubeconfig: Path) -> Iterator[str]:
    """Create a namespace in which pods can be created, and delete it at the end without waiting."""
    from finetune_devcluster import api_client

    name = f"{RUN_PREFIX}{secrets.token_hex(4)}"
    api_client.create_namespace(kubeconfig, name)
    try:
        yield name
    finally:
        api_client.delete_namespace(kubeconfig, name)

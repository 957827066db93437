"""Fixtures for tests against real servers: an S3 server, a Kubernetes control plane, a whole one-node cluster.

Each starts on first use and once per test run. What a level needs and the machine lacks makes the test fail where `CI`
is set and skip elsewhere, in both cases with the command that installs it. Nothing here needs a tool at import.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune_devcluster import errors, s3


@contextlib.contextmanager
def missing_programs_skip() -> Iterator[None]:
    """Turn a missing program into a skip on a laptop and into a failure in CI."""
    try:
        yield
    except errors.MissingProgramError as error:
        if os.environ.get("CI"):
            pytest.fail(f"CI must have every level: {error}")
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[s3.S3Server]:
    """A real S3 server on loopback, alone: no root, no cluster. `.add_identity` makes users with fewer rights."""
    directory: Path = tmp_path_factory.mktemp("s3")
    with missing_programs_skip(), s3.start_s3(directory) as server:
        yield server

"""Fixtures of the storage and prepare tests."""

from collections.abc import Iterator
from typing import Any

import pytest
from fault_proxy import FaultProxy, start_fault_proxy
from prepare_bench import PrepareBench


@pytest.fixture
def bench(s3_server: Any, monkeypatch: pytest.MonkeyPatch) -> PrepareBench:
    """A fresh bucket on the real S3 server; its administrator's keys are in the environment."""
    return PrepareBench(s3_server, monkeypatch)


@pytest.fixture
def fault_proxy(bench: PrepareBench) -> Iterator[FaultProxy]:
    """The bench's server behind a proxy that makes faults; the bench's storage goes through it."""
    with start_fault_proxy(bench.endpoint_url) as proxy:
        bench.endpoint_url = proxy.endpoint_url
        yield proxy

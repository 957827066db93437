"""Fixtures of the storage and prepare tests."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_models
from fault_proxy import FaultProxy, start_fault_proxy
from prepare_bench import PrepareBench
from prepare_stage import PrepareStage


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


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of small models by kind."""
    return {
        "encoder": tiny_models.build_encoder(tmp_path_factory.mktemp("encoder")),
        "decoder": tiny_models.build_decoder(tmp_path_factory.mktemp("decoder")),
    }


@pytest.fixture
def stage(bench: PrepareBench, models: dict[str, Path], tmp_path: Path) -> PrepareStage:
    """A prepare stage whose inputs are good."""
    return PrepareStage(bench, models, tmp_path / "scratch")

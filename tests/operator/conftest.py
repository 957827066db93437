"""Fixtures of the operator's contract tests: one API server, one operator per test module."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import api_fault_proxy
import cluster_fixtures
import operator_driver
import pytest
from api_fault_proxy import ApiFaultProxy
from operator_driver import Operator, Stage

from finetune_devcluster import api_client
from finetune_devcluster.api_client import Client


@pytest.fixture(scope="module")
def client(control_plane: Any) -> Iterator[Client]:
    """An administrator's client of an API server that knows the CRD."""
    with api_client.connect(control_plane.kubeconfig) as client:
        operator_driver.install_crd(client)
        yield client


@pytest.fixture(scope="module")
def shared_namespaces(control_plane: Any) -> Iterator[list[str]]:
    """Two namespaces of this module: an ordinary one, and one for tests that restrict it."""
    fresh = cluster_fixtures.fresh_namespace
    with fresh(control_plane.kubeconfig) as first, fresh(control_plane.kubeconfig) as second:
        yield [first, second]


@pytest.fixture(scope="module")
def operator_environment() -> dict[str, str]:
    """Settings of `operator`; a module that wants others overrides this."""
    return {"FINETUNE_UNSCHEDULABLE_GRACE_SECONDS": "2", "FINETUNE_RESYNC_SECONDS": "5"}


@pytest.fixture(scope="module")
def operator(
    client: Client,
    control_plane: Any,
    shared_namespaces: list[str],
    operator_environment: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Operator]:
    """An operator for the namespaces of this module, with no more rights than it says it needs."""
    directory: Path = tmp_path_factory.mktemp("operator")
    kubeconfig = operator_driver.build_account_kubeconfig(
        client, control_plane.kubeconfig, shared_namespaces, directory
    )
    with operator_driver.running_operator(kubeconfig, shared_namespaces, directory, operator_environment) as running:
        yield running


@pytest.fixture
def stage(client: Client, operator: Operator, shared_namespaces: list[str]) -> Stage:
    """The ordinary namespace, with an operator at work."""
    return Stage(client, shared_namespaces[0])


@pytest.fixture
def restricted_stage(client: Client, operator: Operator, shared_namespaces: list[str]) -> Stage:
    """The namespace for quota and Pod Security, with an operator at work."""
    return Stage(client, shared_namespaces[1])


@pytest.fixture(scope="module")
def api_proxy(
    client: Client, control_plane: Any, shared_namespaces: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ApiFaultProxy]:
    """A proxy in front of the API server, for an operator of this module's namespaces; without faults so far."""
    directory: Path = tmp_path_factory.mktemp("proxy")
    kubeconfig = operator_driver.build_account_kubeconfig(
        client, control_plane.kubeconfig, shared_namespaces, directory
    )
    with api_fault_proxy.running_proxy(kubeconfig, directory) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def operator_behind_proxy(
    api_proxy: ApiFaultProxy, shared_namespaces: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Operator]:
    """An operator that meets the faults of `api_proxy`."""
    directory: Path = tmp_path_factory.mktemp("operator")
    environment = {"FINETUNE_RESYNC_SECONDS": "3"}
    with operator_driver.running_operator(api_proxy.kubeconfig, shared_namespaces, directory, environment) as running:
        yield running

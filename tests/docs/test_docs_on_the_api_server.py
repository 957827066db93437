"""The pages for users, command by command: helm, kubectl and the operator are real, pods are played by their status.

The tests of this module are one story, from the first command of docs/installation.md to its last.
"""

import json
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aws_stand_in
import boto3
import cluster_fixtures
import operator_driver
import pytest
import yaml
from demo_packages import reachable_packages
from documented_commands import ROOT, Shell, find_blocks, link_checkout, split_commands
from operator_driver import Operator, Run, Stage

from finetune_demo import datasets, sources
from finetune_devcluster import api_client, binaries, progress, waiting
from finetune_devcluster.api_client import Client

pytestmark = pytest.mark.contract

INSTALLATION = find_blocks("docs/installation.md")
EXAMPLES = find_blocks("examples/README.md")
NAMESPACE = "finetune-system"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "an-id", "AWS_SECRET_ACCESS_KEY": "a secret with $ and spaces"}
DEADLINE_SECONDS = 30.0


@dataclass(frozen=True)
class Bench:
    """An API server, a checkout, and a shell with helm, kubectl and aws in it."""

    shell: Shell
    client: Client
    kubeconfig: Path

    def get(self, arguments: str) -> list[dict[str, Any]]:
        return list(json.loads(self.shell.run(f"kubectl get {arguments} --output json"))["items"])


@pytest.fixture(scope="module")
def bench(s3_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    with cluster_fixtures.shared_cluster("control-plane", f"docs{worker}") as running:
        programs = tmp_path_factory.mktemp("programs")
        aws = programs / "aws"
        aws.write_text(f'#!/bin/sh\nexec {sys.executable} {aws_stand_in.__file__} "$@"\n')
        aws.chmod(0o755)
        folder = link_checkout(tmp_path_factory.mktemp("checkout"))
        variables = {
            "HOME": str(folder),
            "KUBECONFIG": str(running.kubeconfig),
            # The packages of the examples lie in the cache of the user; HOME is another one.
            "FINETUNE_CACHE": str(sources.cache_directory().parent),
            "AWS_ENDPOINT_URL_S3": s3_server.endpoint_url,
            "AWS_ACCESS_KEY_ID": s3_server.access_key,
            "AWS_SECRET_ACCESS_KEY": s3_server.secret_key,
        }
        shell = Shell(folder, (programs, binaries.build(progress.Steps(quiet=True))), variables)
        with api_client.connect(running.kubeconfig) as client:
            yield Bench(shell, client, running.kubeconfig)


@pytest.fixture(scope="module")
def operator(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """The chart installed as the page says, and the operator of its Deployment: its account, its environment."""
    process = bench.shell.start(INSTALLATION[1])
    pod = waiting.wait_for("the operator's pod", lambda: _find_operator_pod(bench), DEADLINE_SECONDS)
    status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    name = pod["metadata"]["name"]
    bench.client.patch(api_client.POD, name, {"status": status}, NAMESPACE, subresource="status")
    printed = bench.shell.finish(process)
    assert 'deployment "finetune-operator" successfully rolled out' in printed

    folder = tmp_path_factory.mktemp("operator")
    account = pod["spec"]["serviceAccountName"]
    config = yaml.safe_load(bench.kubeconfig.read_text())
    token = bench.shell.run(f"kubectl create token --namespace {NAMESPACE} {account}").strip()
    config["users"] = [{"name": config["users"][0]["name"], "user": {"token": token}}]
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(config))
    [container] = pod["spec"]["containers"]
    environment = {
        item["name"]: item.get("value", "") for item in container["env"] if not item["name"].endswith("_PORT")
    }
    with operator_driver.running_operator(kubeconfig, [], folder, environment) as running:
        yield running


def _find_operator_pod(bench: Bench) -> dict[str, Any]:
    found = bench.client.list(api_client.POD, NAMESPACE)
    if not found:
        raise waiting.NotYetError("no pod")
    [pod] = found
    return pod


def _find_run(bench: Bench, namespace: str, name: str) -> Run:
    def find() -> Run:
        for item in bench.client.list(operator_driver.FINE_TUNE_JOB, namespace):
            if item["metadata"]["name"] == name:
                return Run(Stage(bench.client, namespace), name, item["metadata"]["uid"])
        raise waiting.NotYetError(f"no {name}")

    return waiting.wait_for(f"the job {name}", find, 120.0)


def _play_runs(bench: Bench, namespace: str, names: Iterable[str]) -> None:
    """Let both stages of each run succeed."""
    runs = [_find_run(bench, namespace, name) for name in names]
    for run in runs:
        run.play_prepare()
    for run in runs:
        run.play_train()


@pytest.fixture(scope="module")
def examples(bench: Bench, operator: Operator, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the pages of the examples print, all at once because most of it is waiting; the common page first."""
    cached = tmp_path_factory.mktemp("cached")
    with reachable_packages():
        for name in datasets.EXAMPLES:
            datasets.build_example_data(name, cached)
            datasets.build_example_models(name, cached)
    printed = {"README.md": "".join(bench.shell.run(block) for block in EXAMPLES)}
    blocks = {name: find_blocks(f"examples/{name}/README.md") for name in datasets.EXAMPLES}
    started = {name: bench.shell.start(block) for name, [block] in blocks.items()}
    _play_runs(bench, "demo", started)
    return printed | {name: bench.shell.finish(process) for name, process in started.items()}


def test_the_pages_have_this_many_blocks() -> None:
    assert (len(INSTALLATION), len(EXAMPLES)) == (6, 2)


def test_the_operator_is_installed_with_the_images_of_the_page(bench: Bench, operator: Operator) -> None:
    pod = _find_operator_pod(bench)
    [container] = pod["spec"]["containers"]
    environment = {item["name"]: item.get("value", "") for item in container["env"]}
    built = {item for item in INSTALLATION[0].split() if item.startswith("registry.example.com/")}
    assert {container["image"], environment["FINETUNE_TRAINER_IMAGE"]} == built


def test_the_chart_s_own_page_installs_it_with_the_same_command() -> None:
    [command] = find_blocks("charts/finetune-operator/README.md")
    assert split_commands(command) == split_commands(INSTALLATION[1])[:1]


def test_a_namespace_trains_and_says_how_it_ended(bench: Bench, operator: Operator) -> None:
    given = Shell(bench.shell.folder, bench.shell.programs, {**bench.shell.environment, **CREDENTIALS})
    given.run(INSTALLATION[2])
    secret = json.loads(bench.shell.run("kubectl --namespace team-a get secret s3-credentials --output json"))
    assert set(secret["data"]) == set(CREDENTIALS)

    # The page's job.yaml is the job of the README, in the page's namespace.
    [text] = find_blocks("README.md", "yaml")
    (bench.shell.folder / "job.yaml").write_text(text.replace("namespace: demo", "namespace: team-a"))
    process = bench.shell.start(INSTALLATION[3])
    _play_runs(bench, "team-a", ["movie-sentiment"])
    printed = bench.shell.finish(process)

    assert "1 FineTuneJob checked: 1 valid" in printed
    assert "finetunejob.finetune.dev/movie-sentiment condition met" in printed
    assert "Succeeded" in printed.splitlines()[-1]


def test_the_common_page_makes_the_data_the_namespace_and_the_secret(bench: Bench, examples: dict[str, str]) -> None:
    assert "datasets/movies/test.jsonl" in examples["README.md"]
    assert "secret/s3-credentials created" in examples["README.md"]


@pytest.mark.parametrize("example", datasets.EXAMPLES)
def test_the_commands_of_an_example_end_with_its_figures(examples: dict[str, str], example: str) -> None:
    assert f"finetunejob.finetune.dev/{example} condition met" in examples[example]
    metrics = json.loads(examples[example].splitlines()[-1])
    assert metrics["tuned"] == [{"name": "accuracy", "split": "test", "value": "0.846"}]


@pytest.mark.parametrize("example", datasets.EXAMPLES)
def test_every_file_an_example_asks_for_is_in_the_store(
    bench: Bench, examples: dict[str, str], s3_server: Any, example: str
) -> None:
    spec = yaml.safe_load((ROOT / "examples" / example / "job.yaml").read_text())["spec"]
    client = boto3.client(
        "s3",
        endpoint_url=s3_server.endpoint_url,
        aws_access_key_id=s3_server.access_key,
        aws_secret_access_key=s3_server.secret_key,
        region_name="us-east-1",
    )
    uris = [spec["model"]["uri"], *(part["uri"] for data in spec["data"] for part in data.values() if "uri" in part)]
    for uri in uris:
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        assert client.list_objects_v2(Bucket=bucket, Prefix=key).get("KeyCount"), uri
    client.head_bucket(Bucket=spec["output"]["uri"].removeprefix("s3://").partition("/")[0])


def test_the_jobs_of_the_examples_are_shown(bench: Bench, examples: dict[str, str]) -> None:
    page = (ROOT / "examples" / "README.md").read_text()
    command = "kubectl -n demo get finetunejobs --watch"
    assert f"`{command}`" in page
    printed = bench.shell.run(command.replace("--watch", "--watch=false"))
    assert {line.split()[0] for line in printed.splitlines()[1:]} == set(datasets.EXAMPLES)


def test_uninstalling_leaves_the_jobs_until_the_definition_is_deleted(bench: Bench, operator: Operator) -> None:
    before = bench.get("finetunejobs --all-namespaces")
    operator.stop()
    bench.shell.run(INSTALLATION[4])
    kinds = "deployments,services,serviceaccounts,clusterroles,clusterrolebindings"
    assert bench.get(f"{kinds} --all-namespaces --selector app.kubernetes.io/instance=finetune-operator") == []
    assert len(bench.get("finetunejobs --all-namespaces")) == len(before)
    bench.shell.run(INSTALLATION[5])
    assert "finetunejobs.finetune.dev" not in bench.shell.run("kubectl get crds --output name")

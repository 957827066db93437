"""The commands of docs/devcluster.md: the same words, with a cluster of the test's own."""

import secrets

import pytest
from documented_commands import ROOT, Shell, find_blocks, find_commands

from finetune_devcluster import cluster, leftovers

BLOCKS = find_blocks("docs/devcluster.md", "console")
PAGE = (ROOT / "docs" / "devcluster.md").read_text()


def test_the_page_has_two_blocks() -> None:
    assert [len(find_commands(block)) for block in BLOCKS] == [4, 1]


@pytest.mark.contract
def test_a_cluster_comes_is_used_and_goes(control_plane: cluster.Cluster) -> None:
    assert control_plane  # its start has built the programs
    name = f"own-{secrets.token_hex(3)}"
    commands = "\n".join(find_commands(BLOCKS[0]))
    # The level without a node, which the page has too, under a name of its own.
    assert "`up --level control-plane`" in PAGE
    for command in ("up", "kubeconfig", "down"):
        assert commands.count(f"finetune_devcluster {command}") == 1
        level = " --level control-plane" if command == "up" else ""
        commands = commands.replace(
            f"finetune_devcluster {command}", f"finetune_devcluster {command} --name {name}{level}"
        )
    try:
        printed = Shell(ROOT).run(commands)
    finally:
        cluster.stop(name)
    assert "No resources found" in printed
    assert leftovers.find_leftovers(name) == []


@pytest.mark.cluster
def test_the_inside_of_a_node_can_be_looked_at(node_cluster: cluster.Cluster) -> None:
    assert node_cluster.level == "node"
    printed = Shell(ROOT).run("\n".join(find_commands(BLOCKS[1])))
    assert "KUBE-SERVICES" in printed

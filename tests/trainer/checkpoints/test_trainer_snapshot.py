"""A training's state goes into files and comes back as it was."""

import random
from pathlib import Path

import numpy
import pytest
import torch

from finetune_trainer.checkpoints import random_states, schedule, snapshot, state
from finetune_trainer.checkpoints.snapshot import Buffers, Snapshot
from finetune_trainer.checkpoints.state import Position, TrainingState
from finetune_trainer.telemetry import progress

CPU = torch.device("cpu")


def draw() -> list[float]:
    return [random.random(), random.gauss(0, 1), numpy.random.normal(), float(torch.rand(()))]


@pytest.mark.parametrize("drawn", [0, 1, 2, 700])
def test_random_numbers_go_on_where_they_were(tmp_path: Path, drawn: int) -> None:
    torch.manual_seed(drawn)
    for _ in range(drawn):
        draw()
    snapshot.write_random_state(random_states.capture(CPU), tmp_path, rank=3)
    want = [draw() for _ in range(1000)]

    found = snapshot.load_random_state(tmp_path, rank=3)
    assert found is not None
    random_states.restore(found, CPU)

    assert [draw() for _ in range(1000)] == want
    assert snapshot.load_random_state(tmp_path, rank=4) is None


class Net(torch.nn.Module):
    """A layer that is frozen, one that isn't, and one that counts what goes through."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = torch.nn.Linear(4, 4).requires_grad_(False)
        self.trained = torch.nn.Linear(4, 2)
        self.means = torch.nn.BatchNorm1d(2)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.means(self.trained(self.frozen(rows)))
        return result


def build(seed: int, steps: int) -> tuple[Net, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = Net()
    optimizer = torch.optim.AdamW([item for item in model.parameters() if item.requires_grad], lr=0.1, fused=True)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(8, 4)).square().mean().backward()
        optimizer.step()
    return model, optimizer


def take(model: Net, optimizer: torch.optim.Optimizer, buffers: Buffers) -> Snapshot:
    return Snapshot(
        state=TrainingState(position=Position(step=3)),
        weights=buffers.copy("weights", snapshot.find_weights(model)),
        optimizer=buffers.copy("optimizer", snapshot.find_moments(model, optimizer)),
        save_table=lambda path: progress.write_table([], path),
    )


def test_weights_and_moments_come_back_and_the_next_step_is_the_same(tmp_path: Path) -> None:
    model, optimizer = build(seed=0, steps=3)
    snapshot.write(take(model, optimizer, Buffers()), tmp_path)
    other, other_optimizer = build(seed=0, steps=0)

    snapshot.restore_weights(other, tmp_path / state.WEIGHTS)
    snapshot.restore_moments(other, other_optimizer, tmp_path)

    for each, its_optimizer in ((model, optimizer), (other, other_optimizer)):
        its_optimizer.zero_grad()
        each(torch.ones(8, 4)).square().sum().backward()
        its_optimizer.step()
    assert model.state_dict().keys() == other.state_dict().keys()
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())


def test_a_snapshot_is_a_copy_whose_memory_is_used_again(tmp_path: Path) -> None:
    model, optimizer = build(seed=0, steps=1)
    buffers = Buffers()
    first = take(model, optimizer, buffers)
    before = first.weights["trained.weight"].clone()
    with torch.no_grad():
        model.trained.weight.add_(1)

    assert torch.equal(first.weights["trained.weight"], before)
    again = take(model, optimizer, buffers)
    assert again.weights["trained.weight"].data_ptr() == first.weights["trained.weight"].data_ptr()


@pytest.mark.parametrize("is_larger", [True, False])
def test_weights_of_another_model_are_refused(tmp_path: Path, is_larger: bool) -> None:
    model, optimizer = build(seed=0, steps=1)
    snapshot.write(take(model, optimizer, Buffers()), tmp_path)
    other = build(seed=0, steps=0)[0]
    other.frozen.requires_grad_(is_larger)
    other.trained.bias.requires_grad_(is_larger)

    with pytest.raises(KeyError, match=r"a checkpoint's weights must be those of the model; they differ in"):
        snapshot.restore_weights(other, tmp_path / state.WEIGHTS)


def test_an_optimizer_that_keeps_what_is_no_tensor_is_named() -> None:
    model, optimizer = build(seed=0, steps=1)
    optimizer.state[model.trained.weight]["note"] = "text"

    with pytest.raises(AssertionError, match="the optimizer keeps note as str, which no checkpoint holds"):
        snapshot.find_moments(model, optimizer)


def test_the_table_of_steps_comes_back_bit_for_bit(tmp_path: Path) -> None:
    table: progress.Table = [
        {"step": 1, "train_loss": 0.1 + 0.2, "train_accuracy": 1 / 3},
        {"step": 2, "train_loss": 1e-17, "train_accuracy": 0.0, "valid_loss": 2.5e300},
    ]
    progress.write_table(table, tmp_path / state.TABLE)

    assert progress.load_table(tmp_path / state.TABLE) == table


INTERVALS = [
    (1, "cpu", 60.0),
    (240_000_000, "cpu", 60.0),
    (500_000_000, "cpu", 125.0),
    (96_000_000_000, "cuda", 1920.0),
]


@pytest.mark.parametrize(("num_bytes", "device", "want"), INTERVALS)
def test_a_large_state_is_saved_as_seldom_as_its_cost_asks(num_bytes: int, device: str, want: float) -> None:
    assert schedule.choose_seconds(num_bytes, device) == want


def test_a_state_too_large_for_a_short_notice_is_told_before_the_start() -> None:
    assert schedule.warn_of_notice(10**9) == []
    assert schedule.warn_of_notice(16 * 10**9) == [
        "a checkpoint of 14.9Gi may take 380 s to save: a node that is taken back with less notice, as spot nodes are, "
        "costs the steps since the last one (spec.runPolicy.checkpoint.everySeconds)"
    ]

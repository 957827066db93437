"""Which rows make a step, who takes them, and how they are cut into micro-batches."""

import itertools
import random

import pytest

from finetune_trainer.batches import collate, sampler
from finetune_trainer.batches.collate import Padding
from finetune_trainer.batches.sampler import StepOrder

ORDERS = [
    pytest.param([3, 9, 1, 7, 5, 2, 8, 4, 6, 10], 4, id="an incomplete last step"),
    pytest.param(list(range(1, 65)), 8, id="whole steps only"),
    pytest.param([5], 4, id="one row"),
    pytest.param([5, 5, 5], 8, id="less than a step"),
]


@pytest.mark.parametrize("is_packed", [True, False])
@pytest.mark.parametrize(("lengths", "batch_size"), ORDERS)
def test_the_order_holds_every_row_once_and_begins_with_the_longest(
    lengths: list[int], batch_size: int, is_packed: bool
) -> None:
    def build(epoch: int) -> list[int]:
        return sampler.build_order(lengths, batch_size, seed=13, epoch=epoch, is_packed=is_packed)

    for order in (build(0), build(1)):
        assert sorted(order) == list(range(len(lengths)))
        complete = order[: len(order) // batch_size * batch_size] or order
        assert max(lengths[row] for row in order[:batch_size]) == max(lengths[row] for row in complete)
    assert build(0) == build(0)
    assert len(lengths) < batch_size or build(0) != build(1)


def test_padded_rows_of_one_step_have_similar_lengths_and_packed_ones_are_at_random() -> None:
    lengths = [1 + index % 64 for index in range(512)]

    def measure_padding(*, is_packed: bool) -> float:
        order = sampler.build_order(lengths, 8, seed=13, epoch=0, is_packed=is_packed)
        padded = sum(8 * max(lengths[row] for row in order[start : start + 8]) for start in range(0, 512, 8))
        return 1 - sum(lengths) / padded

    assert measure_padding(is_packed=False) < 0.12
    assert measure_padding(is_packed=True) > 0.3


SHARES = [
    pytest.param([7, 3, 5, 1], 1, [[0, 2, 1, 3]], id="one rank takes all"),
    pytest.param([7, 3, 5, 1], 2, [[0, 3], [2, 1]], id="tokens are shared evenly"),
    pytest.param([4], 2, [[0], []], id="fewer rows than ranks"),
    pytest.param([2, 2, 2, 2], 2, [[0, 2], [1, 3]], id="equal rows go round"),
]


@pytest.mark.parametrize(("lengths", "num_ranks", "want"), SHARES)
def test_rows_are_dealt_to_ranks_by_their_tokens(lengths: list[int], num_ranks: int, want: list[list[int]]) -> None:
    assert sampler.share_rows(lengths, num_ranks) == want


CUTS = [
    pytest.param([3, 5, 2, 4], 7, True, [[1, 2], [3, 0]], id="packed: each into the fullest with room"),
    pytest.param([50, 50, 50], 100, False, [[0, 1], [2]], id="padded: as many as the longest of them allows"),
    pytest.param([98, 60, 100, 59], 400, False, [[2, 0], [1, 3]], id="padded: only rows of like length"),
    pytest.param([9, 2, 2], 4, True, [[0], [1, 2]], id="packed: a longer row by itself"),
    pytest.param([9, 2, 2], 4, False, [[0], [1, 2]], id="padded: a longer row by itself"),
    pytest.param([], 4, True, [], id="no rows"),
]


@pytest.mark.parametrize(("lengths", "max_tokens", "is_packed", "want"), CUTS)
def test_rows_are_cut_into_micro_batches(
    lengths: list[int], max_tokens: int, is_packed: bool, want: list[list[int]]
) -> None:
    assert sampler.cut_micro_batches(lengths, max_tokens, is_packed=is_packed) == want


def test_best_fit_leaves_almost_no_room_in_packed_micro_batches() -> None:
    generator = random.Random(13)
    lengths = [min(1024, max(16, int(generator.lognormvariate(4.6, 1.0)))) for _ in range(400)]

    cut = sampler.cut_micro_batches(lengths, 1024, is_packed=True)

    assert sorted(position for positions in cut for position in positions) == list(range(400))
    sizes = [sum(lengths[position] for position in positions) for positions in cut]
    assert max(sizes) <= 1024
    assert sum(lengths) / (1024 * len(sizes)) > 0.98


@pytest.mark.parametrize("num_ranks", [1, 2, 3])
def test_the_ranks_together_take_every_row_of_each_step_once(num_ranks: int) -> None:
    lengths = [1 + index * 7 % 23 for index in range(21)]
    orders = [StepOrder(lengths, 8, 5, rank=rank, num_ranks=num_ranks, is_packed=True) for rank in range(num_ranks)]

    for epoch in range(2):
        order = sampler.build_order(lengths, 8, 5, epoch, is_packed=True)
        steps = list(zip(*orders, strict=True))
        assert [sorted(itertools.chain(*shares)) for shares in steps] == [
            sorted(order[start : start + 8]) for start in (0, 8, 16)
        ]
    assert [len(order) for order in orders] == [3] * num_ranks


@pytest.mark.parametrize(("is_left", "want"), [(False, [[5, 6], [7, 1]]), (True, [[5, 6], [1, 7]])])
def test_rows_are_padded_on_the_side_that_the_model_does_not_read(is_left: bool, want: list[list[int]]) -> None:
    rows = [{"input_ids": [5, 6]}, {"input_ids": [7]}]
    batch = collate.collate_inputs(rows, Padding(1, is_left=is_left), is_packed=False)
    assert batch["input_ids"].tolist() == want
    assert batch["attention_mask"].tolist() == [[int(token != 1) for token in row] for row in want]


@pytest.mark.parametrize("first", [0, 1, 4, 5, 9, 10, 12])
def test_whoever_goes_on_finds_the_steps_that_are_left(first: int) -> None:
    lengths, options = [5 + number % 7 for number in range(38)], {"rank": 0, "num_ranks": 2, "is_packed": True}
    whole = StepOrder(lengths, 8, 13, **options)
    steps = [step for _ in range(4) for step in whole]

    rest = StepOrder(lengths, 8, 13, **options, first_step=first)
    again = list(rest)

    num_made = first % len(rest)
    assert again[:num_made] == [[]] * num_made
    assert again[num_made:] + list(rest) == steps[first : first - num_made + 2 * len(rest)]

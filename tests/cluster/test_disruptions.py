"""Runs that are disturbed on a real node publish what they would have published, and say what befell them.

The first seeds stand for all; `-m disruptions` tries two hundred and writes what they cost.
"""

from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import disruption_sweep
import disturbance_plans
import pytest
from disruption_sweep import Result, Sweep

SEEDS = 200
FEW = (7, 8, 9, 10, 11, 12)


@pytest.fixture(scope="module")
def sweep(product: Any) -> Iterator[Sweep]:
    with disruption_sweep.open_sweep(product) as opened:
        yield opened


@pytest.fixture(scope="module")
def results(sweep: Sweep, request: pytest.FixtureRequest) -> Iterator[dict[int, Future[Result]]]:
    """The results of the chosen seeds, which run side by side; at the end their sums are printed."""
    parameters = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    chosen = sorted(
        {int(found["seed"]) for found in parameters if "seed" in found}, key=lambda seed: (seed not in FEW, seed)
    )
    yield sweep.submit(chosen)
    text = sweep.write_summary()
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print(f"\n{text}")


def test_every_kind_of_disturbance_and_of_run_is_among_the_few() -> None:
    plans = [disturbance_plans.draw_plan(seed) for seed in FEW]
    assert {plan.recipe for plan in plans} == set(disturbance_plans.RECIPES)
    assert {item.kind for plan in plans for item in plan.disturbances} == set(disturbance_plans.Kind)


@pytest.mark.cluster
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", FEW)
def test_a_disturbed_run_publishes_the_same_weights(seed: int, results: dict[int, Future[Result]]) -> None:
    result = results[seed].result()
    assert result["wrong"] == [], result["done"]


@pytest.mark.disruptions
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(SEEDS))
def test_each_of_two_hundred_disturbed_runs_publishes_the_same_weights(
    seed: int, results: dict[int, Future[Result]]
) -> None:
    result = results[seed].result()
    assert result["wrong"] == [], result["done"]

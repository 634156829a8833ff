"""Allocation against exhaustive search."""

import itertools

import numpy as np
import pytest

from optc.errors import BudgetMissed
from optc.passes.walk.allocate import greedy, knapsack, uniform
from optc.passes.walk.choice import Choice, frontier


def layers(seed: int, count: int = 4) -> list[list[Choice]]:
    rng = np.random.default_rng(seed)
    return [
        [Choice(100.0, 0.0)]
        + [Choice(float(rng.integers(5, 100)), float(rng.random()), "x", {"rank": r}) for r in range(5)]
        for _ in range(count)
    ]


@pytest.mark.parametrize("seed", range(8))
def test_knapsack_is_exact_for_costs_on_the_grid(seed: int) -> None:
    options = layers(seed)
    budget = 220.0
    found = knapsack(options, budget, buckets=220)
    assert sum(c.cost for c in found) <= budget
    best = min(
        sum(c.error for c in pick) for pick in itertools.product(*options) if sum(c.cost for c in pick) <= budget
    )
    assert sum(c.error for c in found) == pytest.approx(best)


@pytest.mark.parametrize("seed", range(8))
def test_greedy_keeps_the_budget_and_never_beats_the_exact_answer(seed: int) -> None:
    options = layers(seed)
    exact, quick = knapsack(options, 220.0, buckets=220), greedy(options, 220.0)
    assert sum(c.cost for c in quick) <= 220.0
    assert sum(c.error for c in quick) >= sum(c.error for c in exact) - 1e-12


def test_a_budget_of_everything_keeps_everything() -> None:
    options = layers(1)
    assert all(c.form == "keep" for c in knapsack(options, 400.0))
    assert all(c.form == "keep" for c in greedy(options, 400.0))


@pytest.mark.parametrize("allocate", [knapsack, greedy])
def test_a_budget_below_the_cheapest_is_missed(allocate) -> None:
    with pytest.raises(BudgetMissed, match="cannot be met"):
        allocate(layers(2), 1.0)


def test_uniform_takes_the_best_within_the_share_of_each_layer() -> None:
    choices = [Choice(10, 0.0), Choice(6, 0.2), Choice(5, 0.3), Choice(4, 0.25)]
    assert uniform([choices], 0.6)[0].cost == 6
    assert uniform([choices], 0.5)[0].cost == 4
    assert uniform([choices], 0.1)[0].cost == 4


def test_frontier_drops_what_is_beaten_twice() -> None:
    kept = frontier([Choice(5, 0.3), Choice(4, 0.25), Choice(10, 0.0), Choice(11, 0.0)])
    assert [c.cost for c in kept] == [4, 10]


def test_a_choice_reads_as_its_settings() -> None:
    assert str(Choice(1.0, 0.0)) == "keep"
    assert str(Choice(1.0, 0.0, "channel", {"rank": 8})) == "channel(rank=8)"

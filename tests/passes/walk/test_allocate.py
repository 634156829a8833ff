"""Allocation against exhaustive search."""

import itertools

import numpy as np
import pytest

from optc.errors import BudgetMissed
from optc.passes.walk.allocate import knapsack
from optc.passes.walk.choice import Choice, frontier


def layers(seed: int, count: int = 4) -> list[list[Choice[None]]]:
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
    chosen = knapsack(options, budget, buckets=220)
    assert sum(c.cost for c in chosen) <= budget
    best = min(
        sum(c.error for c in pick) for pick in itertools.product(*options) if sum(c.cost for c in pick) <= budget
    )
    assert sum(c.error for c in chosen) == pytest.approx(best)


def test_a_budget_of_everything_keeps_everything() -> None:
    options = layers(1)
    assert all(c.kind == "keep" for c in knapsack(options, 400.0))


def test_a_budget_below_the_cheapest_is_missed() -> None:
    with pytest.raises(BudgetMissed, match="cannot be met"):
        knapsack(layers(2), 1.0)


def test_frontier_drops_what_is_beaten_twice() -> None:
    kept: list[Choice[None]] = frontier([Choice(5, 0.3), Choice(4, 0.25), Choice(10, 0.0), Choice(11, 0.0)])
    assert [c.cost for c in kept] == [4, 10]


def test_a_choice_reads_as_its_settings() -> None:
    assert str(Choice(1.0, 0.0)) == "keep"
    assert str(Choice(1.0, 0.0, "channel", {"rank": 8})) == "channel(rank=8)"

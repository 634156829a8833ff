"""The knapsack against an exact solver, and its answers where there are none."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import Bounds, LinearConstraint, milp

from optc.searcher.knapsack import knapsack

Instance = tuple[list[np.ndarray], list[np.ndarray], np.ndarray]


def instance(seed: int) -> Instance:
    """Sites whose dearer options lose less, under one to three caps that may not be met."""
    random = np.random.default_rng(seed)
    count = int(random.integers(1, 4))
    losses, costs = [], []
    for _ in range(int(random.integers(1, 10))):
        options = int(random.integers(1, 8))
        losses.append(np.sort(random.random(options)) * random.random() ** 3)
        costs.append(np.sort(random.random((options, count)) - 0.3, axis=0)[::-1])
    low, high = (sum(function(one, axis=0) for one in costs) for function in (np.min, np.max))
    return losses, costs, low + (high - low) * random.uniform(-0.1, 1, size=count)


def oracle(losses: list[np.ndarray], costs: list[np.ndarray], caps: np.ndarray) -> float | None:
    sizes = [len(one) for one in losses]
    choice = np.zeros((len(losses), sum(sizes)))
    for i, (start, size) in enumerate(zip(np.cumsum([0, *sizes]), sizes, strict=False)):
        choice[i, start : start + size] = 1
    one_each = LinearConstraint(choice, 1, 1)
    within = LinearConstraint(np.concatenate(costs).T, -np.inf, caps)
    solved = milp(
        np.concatenate(losses),
        constraints=[one_each, within],
        integrality=np.ones(choice.shape[1]),
        bounds=Bounds(0, 1),
        options={"mip_rel_gap": 0},
    )
    return None if solved.x is None else float(solved.fun)


@pytest.mark.parametrize("seed", range(60))
def test_it_is_exact(seed: int) -> None:
    losses, costs, caps = instance(seed)
    answer, least = knapsack(losses, costs, caps), oracle(losses, costs, caps)
    if least is None:
        assert answer is None
        return
    assert answer is not None
    assert answer.exact
    assert answer.loss == pytest.approx(least, abs=1e-9)
    spent = sum(cost[i] for cost, i in zip(costs, answer.at, strict=True))
    assert (spent <= caps + 1e-9).all()


def test_an_answer_that_was_not_proven_says_so_and_is_within_the_caps() -> None:
    random = np.random.default_rng(3)
    losses = [random.random(20) for _ in range(40)]
    costs = [random.random((20, 3)) for _ in range(40)]
    caps = np.array([14.0, 14.0, 14.0])
    answer = knapsack(losses, costs, caps, nodes=1)
    assert answer is not None
    assert not answer.exact
    assert (sum(cost[i] for cost, i in zip(costs, answer.at, strict=True)) <= caps + 1e-9).all()


def test_no_sites_cost_nothing() -> None:
    nothing = knapsack([], [], np.array([0.0]))
    assert nothing is not None
    assert nothing.at == ()
    assert knapsack([], [], np.array([-1.0])) is None

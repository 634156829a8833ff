"""Pick one choice a layer so that the whole meets a budget at the least error.

  knapsack   multiple-choice dynamic programming over costs in steps of the budget (SPDY, Frantar & Alistarh 2022)
  greedy     from the dearest choices on, always the step with the least added error per saved cost
  uniform    the same share of the cost in every layer

Errors add over layers. Every layer's choices must hold the one that keeps it, so that a budget of the sum of these is
always met. A budget below the sum of the cheapest choices cannot be met: `BudgetMissed`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...errors import BudgetMissed
from .choice import Choice, frontier


def knapsack(layers: Sequence[Sequence[Choice]], budget: float, *, buckets: int = 10_000) -> list[Choice]:
    """One choice of each layer with sum(cost) <= budget and the least sum(error); ties go to the lower cost.

    Costs are rounded up to budget / buckets, so the answer is feasible for the true costs; it is exact where the costs
    are multiples of that step.
    """
    fronts = [frontier(list(choices)) for choices in layers]
    _check(fronts, budget)
    step = budget / buckets if budget > 0 else 1.0
    floor = np.array([f[0].cost for f in fronts])
    spare = int((budget - floor.sum()) / step + 1e-9)  # budget left above everyone's cheapest, in steps
    best = np.zeros(spare + 1)
    picks = np.zeros((len(fronts), spare + 1), dtype=np.int32)
    for layer, front in enumerate(fronts):
        fresh = np.full(spare + 1, np.inf)
        for index, choice in enumerate(front):
            need = int(np.ceil((choice.cost - front[0].cost) / step - 1e-9))
            if need > spare:
                break
            candidate = np.full(spare + 1, np.inf)
            candidate[need:] = best[: spare + 1 - need] + choice.error
            better = candidate < fresh
            fresh[better] = candidate[better]
            picks[layer, better] = index
        best = fresh
    left = int(np.argmin(best))  # the first minimum: the least spending among equals
    chosen: list[Choice] = []
    for layer in range(len(fronts) - 1, -1, -1):
        choice = fronts[layer][picks[layer, left]]
        left -= int(np.ceil((choice.cost - fronts[layer][0].cost) / step - 1e-9))
        chosen.append(choice)
    return chosen[::-1]


def greedy(layers: Sequence[Sequence[Choice]], budget: float) -> list[Choice]:
    """One choice of each layer with sum(cost) <= budget, by the steepest step first."""
    fronts = [frontier(list(choices)) for choices in layers]
    _check(fronts, budget)
    at = [len(f) - 1 for f in fronts]
    total = sum(f[-1].cost for f in fronts)
    while total > budget:
        best, where = np.inf, (-1, -1)
        for layer, front in enumerate(fronts):
            now = front[at[layer]]
            for index in range(at[layer]):
                slope = (front[index].error - now.error) / (now.cost - front[index].cost)
                if slope < best:
                    best, where = slope, (layer, index)
        layer, index = where
        total -= fronts[layer][at[layer]].cost - fronts[layer][index].cost
        at[layer] = index
    return [f[i] for f, i in zip(fronts, at, strict=True)]


def uniform(layers: Sequence[Sequence[Choice]], ratio: float) -> list[Choice]:
    """For each layer the choice of least error that costs at most `ratio` of the dearest; the cheapest where none
    does."""
    chosen = []
    for choices in layers:
        limit = ratio * max(c.cost for c in choices)
        fitting = [c for c in choices if c.cost <= limit * (1 + 1e-9)]
        cheapest = min(choices, key=lambda c: (c.cost, c.error))
        chosen.append(min(fitting, key=lambda c: (c.error, c.cost)) if fitting else cheapest)
    return chosen


def _check(fronts: list[list[Choice]], budget: float) -> None:
    if any(not f for f in fronts):
        raise BudgetMissed("a layer has no choices; give it at least the one that keeps it")
    least = sum(f[0].cost for f in fronts)
    if least > budget * (1 + 1e-9):
        raise BudgetMissed(f"a budget of {budget:g} cannot be met: the cheapest choices together cost {least:g}")

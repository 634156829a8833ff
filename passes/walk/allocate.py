"""Pick one choice a layer so that the whole meets a budget at the least error.

Multiple-choice dynamic programming over costs in steps of the budget (SPDY, Frantar & Alistarh 2022). Errors add over
layers. Every layer's choices must hold the one that keeps it, so that a budget of the sum of these is always met. A
budget below the sum of the cheapest choices cannot be met: `BudgetMissed`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...errors import BudgetMissed
from .choice import Choice, Form, frontier


def knapsack(layers: Sequence[Sequence[Choice[Form]]], budget: float, *, buckets: int = 10_000) -> list[Choice[Form]]:
    """One choice of each layer with sum(cost) <= budget and the least sum(error); ties go to the lower cost.

    Costs are rounded up to budget / buckets, so the answer is feasible for the true costs; it is exact where the costs
    are multiples of that step.
    """
    fronts = [frontier(choices) for choices in layers]
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
    chosen: list[Choice[Form]] = []
    for layer in range(len(fronts) - 1, -1, -1):
        choice = fronts[layer][picks[layer, left]]
        left -= int(np.ceil((choice.cost - fronts[layer][0].cost) / step - 1e-9))
        chosen.append(choice)
    return chosen[::-1]


def _check(fronts: list[list[Choice[Any]]], budget: float) -> None:
    if any(not f for f in fronts):
        raise BudgetMissed("a layer has no choices; give it at least the one that keeps it")
    least = sum(f[0].cost for f in fronts)
    if least > budget * (1 + 1e-9):
        raise BudgetMissed(f"a budget of {budget:g} cannot be met: the cheapest choices together cost {least:g}")

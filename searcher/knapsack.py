"""One option a site, the sum of the losses the least, the sums of several costs within their caps: exactly.

Multiple-choice knapsack by branch and bound. With multipliers l >= 0 of the caps

    g(l) = sum_i min_j (loss_ij + l . cost_ij) - l . cap

is a lower bound (Lagrange); the best l is found by Polyak's subgradient steps. An option whose reduced loss alone lifts
the bound above the best answer so far can be in no better one and goes; what is left is searched depth first, sites of
the widest choice first (Kellerer, Pferschy, Pisinger, "Knapsack Problems", 2004, sections 9.3 and 11.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.intp]

_STEPS = 300
NODES = 20_000
"""Branches looked into; an answer after more is the best so far, and says that it is not proven."""
_SLACK = 1e-9
_NEVER = 1e30
"""The cost of an option that a site does not have."""


@dataclass(frozen=True, slots=True)
class Answer:
    """`at` is the option of each site; `exact` tells whether no other answer loses less."""

    at: tuple[int, ...]
    loss: float
    exact: bool


def knapsack(losses: Sequence[Array], costs: Sequence[Array], caps: Array, *, nodes: int = NODES) -> Answer | None:
    """The answer for sites with `losses` (options,) and `costs` (options, caps); `None` where there is none.

    Costs may be negative: what counts is their sum.
    """
    if not losses:
        return Answer((), 0.0, exact=True) if (caps >= -_SLACK).all() else None
    problem = _Problem(losses, costs, caps)
    if (problem.spare < -_SLACK).any():
        return None
    problem.relax()
    return problem.search(nodes)


class _Problem:
    def __init__(self, losses: Sequence[Array], costs: Sequence[Array], caps: Array) -> None:
        most, count = max(map(len, losses)), len(caps)
        self.loss = np.full((len(losses), most), np.inf)
        self.cost = np.zeros((len(losses), most, count))
        for i, (loss, cost) in enumerate(zip(losses, costs, strict=True)):
            self.loss[i, : len(loss)] = loss
            self.cost[i, : len(loss)] = cost
        open_ = np.isfinite(self.loss)
        cheapest = np.where(open_[:, :, None], self.cost, np.inf).min(axis=1)
        self.spare = caps - cheapest.sum(axis=0)
        # Costs above the cheapest, in units in which what is left to spend is 1.
        self.unit = np.maximum(self.spare, 1e-12)
        self.cost = np.where(open_[:, :, None], (self.cost - cheapest[:, None, :]) / self.unit, _NEVER)
        self.rows = np.arange(len(losses))
        self.best = np.inf
        self.at: Index | None = None
        self.bound = -np.inf
        self.multipliers = np.zeros(count)

    def relax(self) -> None:
        """Find the multipliers, and a first answer on the way."""
        self._offer(self.cost.max(axis=2).argmin(axis=1))
        multipliers, scale = self.multipliers.copy(), 1.0
        idle = 0
        for step in range(_STEPS):
            reduced = self.loss + self.cost @ multipliers
            at = reduced.argmin(axis=1)
            bound = float(reduced[self.rows, at].sum() - multipliers.sum())
            if bound > self.bound:
                self.bound, self.multipliers, idle = bound, multipliers.copy(), 0
            else:
                idle += 1
                scale = scale / 2 if idle % 15 == 0 else scale
            slope = self.cost[self.rows, at].sum(axis=0) - 1.0
            if step % 10 == 0 or (slope <= 0).all():
                self._offer(at)
            size = float(slope @ slope)
            goal = self.best if np.isfinite(self.best) else bound + abs(bound) + 1.0
            if size < 1e-18 or goal - self.bound <= 1e-12 * max(abs(goal), 1e-12):
                break
            multipliers = np.maximum(multipliers + scale * max(goal - bound, 0.0) / size * slope, 0.0)

    def _offer(self, start: Index) -> None:
        """Repair a pick that costs too much by the cheapest exchanges, spend what is left on the best ones, and keep it
        where it loses less."""
        at = start.copy()
        spent = self.cost[self.rows, at].sum(axis=0)
        for _ in range(4 * len(at)):
            over = np.maximum(spent - 1.0, 0.0)
            if not (over > _SLACK).any():
                break
            saved = ((self.cost[self.rows, at][:, None, :] - self.cost) * (over > 0)).sum(axis=2)
            lost = self.loss - self.loss[self.rows, at][:, None]
            with np.errstate(invalid="ignore", divide="ignore"):
                price = np.where(saved > _SLACK, np.maximum(lost, 0.0) / saved, np.inf)
            i, j = np.unravel_index(int(np.argmin(price)), price.shape)
            if not np.isfinite(price[i, j]):
                return
            spent = spent + self.cost[i, j] - self.cost[i, at[i]]
            at[i] = j
        if (spent > 1.0 + _SLACK).any():
            return
        for _ in range(4 * len(at)):
            gain = self.loss[self.rows, at][:, None] - self.loss
            after = spent - self.cost[self.rows, at][:, None, :] + self.cost
            gain = np.where((after <= 1.0 + _SLACK).all(axis=2), gain, 0.0)
            i, j = np.unravel_index(int(np.argmax(gain)), gain.shape)
            if gain[i, j] <= 0.0:
                break
            spent = spent + self.cost[i, j] - self.cost[i, at[i]]
            at[i] = j
        total = float(self.loss[self.rows, at].sum())
        if total < self.best:
            self.best, self.at = total, at

    def search(self, nodes: int) -> Answer | None:
        reduced = self.loss + self.cost @ self.multipliers
        least = reduced.min(axis=1)
        gap = reduced - least[:, None]
        total = float(least.sum() - self.multipliers.sum())
        room = self.best - total
        options = [np.flatnonzero(gap[i] <= room + 1e-12) for i in self.rows]
        options = [one[np.argsort(gap[i, one], kind="stable")] for i, one in enumerate(options)]
        order = sorted(self.rows, key=lambda i: -len(options[i]))
        exact, left = True, nodes
        at = np.zeros(len(order), np.intp)
        # Of each site that is open: which of its options is next, the bound and what is spent before it.
        stack: list[tuple[int, int, float, Array, float]] = [(0, 0, total, np.zeros(self.cost.shape[2]), 0.0)]
        while stack:
            depth, turn, bound, spent, lost = stack.pop()
            if depth == len(order):
                if lost < self.best:
                    self.best, self.at = lost, at.copy()
                continue
            i = int(order[depth])
            if turn >= len(options[i]):
                continue
            j = int(options[i][turn])
            here = bound + float(gap[i, j])
            if here >= self.best - 1e-12 * max(abs(self.best), 1e-12):
                continue
            stack.append((depth, turn + 1, bound, spent, lost))
            after = spent + self.cost[i, j]
            if (after > 1.0 + _SLACK).any():
                continue
            left -= 1
            if left < 0:
                exact = False
                break
            at[i] = j
            stack.append((depth + 1, 0, here, after, lost + float(self.loss[i, j])))
        if self.at is None:
            return None
        return Answer(tuple(map(int, self.at)), self.best, exact)

"""What a strategy is given: the database, what was judged so far, and what is wanted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from ..report.budget import Budget
from .judge import Figures, Judged
from .space import METRICS, Metric, Pick, Space
from .surrogate import Surrogate

_TIGHTER, _LOOSER = 0.8, 1.25
_START = 0.3


@dataclass(slots=True)
class Aim:
    """What makes one candidate better than another, and what costs it is to keep (`caps`, shares of the original).

    Where the budget limits costs, the least loss within all limits is best. Where it has floors alone, the cheapest by
    `size` (and latency, where that is known) that keeps them is: the cap then moves with what was judged, tighter
    where the floors were kept and looser where not.
    """

    limited: dict[Metric, float]
    timed: bool
    cap: float = _START
    _kept: float = 1.0
    _broken: float = 0.0

    @staticmethod
    def of(budget: Budget, whole: Mapping[Metric, float], *, timed: bool) -> Aim:
        """`whole` are the original's figures, in the units of budgets."""
        limited: dict[Metric, float] = {}
        for metric in METRICS:
            limit = next((one for one in budget.limits if one.metric == metric), None)
            if limit is not None:
                limited[metric] = limit.bound if limit.relative else limit.bound / max(whole[metric], 1e-30)
        return Aim(limited, timed)

    @property
    def caps(self) -> dict[Metric, float]:
        return self.limited or {"size": self.cap}

    def cost(self, costs: Mapping[Metric, float]) -> float:
        """The one cost by which candidates that keep all limits differ, where the budget limits none."""
        size = costs.get("size", 1.0)
        return size * costs.get("latency", 1.0) if self.timed else size

    def order(self, figures: Figures) -> tuple[float, float, float]:
        """Smaller is better: what limits lack, then what counts among those that lack nothing."""
        own = figures.loss if self.limited else self.cost(figures.costs)
        return figures.miss, own, figures.loss

    def learn(self, figures: Figures) -> None:
        """Move the cap by bisection on a scale of ratios."""
        if self.limited or figures.failed:
            return
        size = figures.costs.get("size", 1.0)
        if figures.met:
            self._kept = min(self._kept, size)
        elif size < self._kept:
            self._broken = max(self._broken, size)
        if self._broken and self._broken < self._kept:
            self.cap = float(np.sqrt(self._broken * self._kept))
        else:
            self.cap = _TIGHTER * self._kept if figures.met else min(_LOOSER * self.cap, 1.0)


@dataclass(slots=True)
class Task:
    """One search as a strategy sees it. `judged` grows between two of its proposals."""

    space: Space
    aim: Aim
    random: np.random.Generator
    surrogate: Surrogate
    judged: list[Judged] = field(default_factory=list)

    def enter(self, space: Space) -> None:
        """Go on in a database. The picks so far, which changed nothing but the form, are picks of it."""
        self.space, self.surrogate = space, Surrogate(space)
        for i, one in enumerate(self.judged):
            if one.pick is not None:
                self.judged[i] = replace(one, pick=space.within(space.pick(one.pick.form)))
                self.surrogate.learn(self.judged[i])

    def learn(self, one: Judged) -> None:
        self.judged.append(one)
        self.surrogate.learn(one)
        self.aim.learn(one.figures)

    @property
    def best(self) -> Judged | None:
        """The best candidate so far, whether it keeps the budget or not."""
        built = [one for one in self.judged if not one.figures.failed]
        return min(built, key=lambda one: self.aim.order(one.figures), default=None)

    def excess(self, costs: Mapping[Metric, float]) -> float:
        """By what share costs are above their caps, in all."""
        return sum(max(costs[metric] / cap - 1.0, 0.0) for metric, cap in self.aim.caps.items())

    def predicted(self, pick: Pick) -> tuple[float, float]:
        """What a pick is taken to lack of the caps, and to lose."""
        pick = self.space.within(pick)
        return self.excess(self.surrogate.careful(pick)), self.surrogate.loss(pick)

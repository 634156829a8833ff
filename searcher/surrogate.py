"""What a pick will come to, before it is built: the database's sums, corrected by what was really built.

Losses of single options do not add up: passes repair for each other what they lose, and in other measure by pass. So
the loss is taken for

    loss(p) = sum_f w_f S_f(p) + w_form,      w >= 0

with S_f the sum of the losses of the options of family f. The w start at 1 and follow the candidates that were judged,
by non-negative least squares on relative errors with a pull towards 1. A cost is the database's times the mean ratio of
what was measured to it, a form (of work and weights, in all), in which candidates of a like cost count most.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from .judge import Figures, Judged
from .space import Meter, Metric, Pick, Space

_PULL = 0.3
"""Weight of what is believed beforehand, against that of one candidate."""
_LEAST = 1e-6
"""A loss below which relative errors tell nothing."""
_TINY = 1e-9
_LATEST = 6
"""Candidates of a form whose costs correct the database's, the nearest to a pick first."""
_NEAR = 0.02
"""The distance of costs, on a logarithmic scale, within which candidates count about alike."""


@dataclass(slots=True)
class Surrogate:
    """Predictions over `space`; `weights` are the w by family, and by form as `form NAME`."""

    space: Space
    weights: dict[str, float] = field(default_factory=dict)
    _meter: Meter = field(init=False)
    _judged: list[tuple[Pick, Figures]] = field(default_factory=list)
    _predicted: list[dict[Metric, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._meter = Meter(self.space)

    def learn(self, one: Judged) -> None:
        """Take in a candidate; one that failed, was taught besides, or is no pick, tells nothing."""
        if one.pick is None or one.figures.failed or one.taught or not math.isfinite(one.figures.loss):
            return
        self._judged.append((one.pick, one.figures))
        self._predicted.append(self._meter.costs(one.pick))
        self._fit()

    def loss(self, pick: Pick) -> float:
        sums = self.space.losses(pick)
        form = self.weights.get(f"form {pick.form}", 0.0)
        return form + sum(self.weights.get(family, 1.0) * total for family, total in sums.items())

    def costs(self, pick: Pick) -> dict[Metric, float]:
        """The predicted shares of the original."""
        costs = self._meter.costs(pick)
        return {metric: cost * self._ratio(metric, pick.form, cost) for metric, cost in costs.items()}

    def _ratio(self, metric: Metric, form: str, cost: float) -> float:
        """Measured over predicted, of the candidates of the form: the more one counts, the nearer its cost is. Work and
        weights are the same in all forms."""
        ratios = [
            (abs(math.log(max(predicted[metric], _TINY) / max(cost, _TINY))), measured / predicted[metric])
            for (pick, figures), predicted in zip(self._judged, self._predicted, strict=True)
            if (pick.form == form or metric in ("macs", "params"))
            and (measured := figures.costs.get(metric)) is not None
            and predicted[metric] > _TINY
        ]
        nearest = sorted(ratios)[:_LATEST]
        if not nearest:
            return 1.0
        weights = [1.0 / (_NEAR + distance) for distance, _ in nearest]
        return float(np.average([ratio for _, ratio in nearest], weights=weights))

    def _fit(self) -> None:
        from scipy.optimize import nnls

        judged = self._judged
        rows: list[Mapping[str, float]] = [{**self.space.losses(pick), f"form {pick.form}": 1.0} for pick, _ in judged]
        names = sorted({name for row in rows for name in row})
        losses = np.array([max(figures.loss, _LEAST) for _, figures in judged])
        matrix = np.array([[row.get(name, 0.0) for name in names] for row in rows]) / losses[:, None]
        # The pull is in units of what a family typically is of a candidate's loss, or a large sum would outvote it.
        scale = np.maximum(matrix.max(axis=0), _TINY)
        prior = np.array([0.0 if name.startswith("form ") else 1.0 for name in names])
        pull = _PULL * np.diag(np.minimum(scale, 1.0))
        solved, _ = nnls(np.vstack([matrix, pull]), np.concatenate([np.ones(len(judged)), pull @ prior]))
        self.weights = dict(zip(names, map(float, solved), strict=True))


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """The places of the points (cost, loss) that no other one beats in both, by rising cost."""
    best: list[int] = []
    for i in sorted(range(len(points)), key=lambda i: points[i]):
        if not best or points[i][1] < points[best[-1]][1]:
            best.append(i)
    return best

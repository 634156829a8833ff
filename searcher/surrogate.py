"""What a pick will come to, before it is built: the database's sums, corrected by what was really built.

Losses of single options do not add up: passes repair for each other what they lose, and in other measure by pass. So
the loss is taken for

    loss(p) = sum_f w_f S_f(p) + w_form,      w >= 0

with S_f the sum of the losses of the options of family f. The w start at 1 and follow the candidates that were judged,
by non-negative least squares on relative errors with a pull towards 1. Work and weights are the database's times the
mean ratio of what was measured to it. Bytes and time are a line through what was measured of the form,

    cost = m + s (c - c_m),      s pulled towards 1 (or what is measured over c, where that is less),

since a file has more in it than weights, and a node takes some time however little it computes. In all of them
candidates of a like cost count most.

What is picked for being cheap is, of all that is, what the prediction is most wrong about. So predictions are held
against what then came, and `careful` costs are as much higher.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .judge import Figures, Judged
from .space import Array, Meter, Metric, Pick, Space

_PULL = 0.3
"""Weight of what is believed beforehand, against that of one candidate."""
_LEAST = 1e-6
"""A loss below which relative errors tell nothing."""
_TINY = 1e-9
_LATEST = 6
"""Candidates of a form whose costs correct the database's, the nearest to a pick first."""
_NEAR = 0.02
"""The distance of costs, on a logarithmic scale, within which candidates count about alike."""
_FADES = 0.6
"""What an error of prediction counts beside that of the next candidate."""
_CAREFUL = 0.15
"""The most that a prediction is taken to be too low."""
_STIFF: Mapping[Metric, float] = {"size": 0.05, "latency": 0.02}
"""The costs that lie on a line, each with the spread of candidates from which on they tell its slope."""
_STEEPEST = 1.5


@dataclass(slots=True)
class Surrogate:
    """Predictions over `space`; `weights` are the w by family, and by form as `form NAME`."""

    space: Space
    weights: dict[str, float] = field(default_factory=dict)
    _meter: Meter = field(init=False)
    _judged: list[tuple[Pick, Figures]] = field(default_factory=list)
    _predicted: list[dict[Metric, float]] = field(default_factory=list)
    _errors: list[tuple[str, dict[Metric, float]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._meter = Meter(self.space)

    def learn(self, one: Judged) -> None:
        """Take in a candidate; one that failed, was taught besides, or is no pick, tells nothing."""
        if one.pick is None or one.figures.failed or one.taught or not math.isfinite(one.figures.loss):
            return
        if any(pick.form == one.pick.form and any(pick.at) for pick, _ in self._judged):
            expected, costs = self.costs(one.pick), one.figures.costs
            errors = {m: math.log(costs[m] / max(expected[m], _TINY)) for m in costs if costs[m] > 0.0}
            self._errors.append((one.pick.form, errors))
        self._judged.append((one.pick, one.figures))
        self._predicted.append(self._meter.costs(one.pick))
        self._fit()

    def loss(self, pick: Pick) -> float:
        sums = self.space.losses(pick)
        form = self.weights.get(f"form {pick.form}", 0.0)
        return form + sum(self.weights.get(family, 1.0) * total for family, total in sums.items())

    def costs(self, pick: Pick) -> dict[Metric, float]:
        """The predicted shares of the original."""
        return _alone(self._corrected(pick.form, self._meter.costs_of(pick.form, np.array([pick.at], np.intp))))

    def careful(self, pick: Pick) -> dict[Metric, float]:
        """The predicted shares, each higher by what predictions of the form were lately too low."""
        return _alone(self.careful_of(pick.form, np.array([pick.at], np.intp)))

    def careful_of(self, form: str, picks: NDArray[np.intp]) -> dict[Metric, Array]:
        """The `careful` costs (picks,) of many picks of a form, (picks, sites)."""
        costs = self._corrected(form, self._meter.costs_of(form, picks))
        return {metric: each * (1.0 + self.margin(metric, form)) for metric, each in costs.items()}

    def margin(self, metric: Metric, form: str) -> float:
        """The share by which costs of a form come out above their prediction: the mean and the standard deviation of
        the errors, the latest counting most; at least 0. Before anything but the form changed, nothing is known."""
        errors = np.array([one[metric] for of, one in self._errors if of == form and metric in one])
        if not len(errors):
            return 0.0
        weights = _FADES ** np.arange(len(errors))[::-1]
        mean = float(np.average(errors, weights=weights))
        spread = math.sqrt(float(np.average((errors - mean) ** 2, weights=weights)))
        return min(max(math.expm1(mean + spread), 0.0), _CAREFUL)

    def _corrected(self, form: str, costs: Mapping[Metric, Array]) -> dict[Metric, Array]:
        return {metric: self._measured(metric, form, each) for metric, each in costs.items()}

    def _measured(self, metric: Metric, form: str, costs: Array) -> Array:
        """Costs (picks,) by what was measured of the candidates of the form; work and weights are the same in all
        forms."""
        seen = sorted(
            (predicted[metric], measured)
            for (pick, figures), predicted in zip(self._judged, self._predicted, strict=True)
            if (pick.form == form or metric in ("macs", "params"))
            and (measured := figures.costs.get(metric)) is not None
            and predicted[metric] > _TINY
        )
        if not seen:
            return costs
        predicted, measured = np.array(seen).T
        distances = np.abs(np.log(predicted / np.maximum(costs, _TINY)[:, None]))
        nearest = np.argsort(distances, axis=1, kind="stable")[:, :_LATEST]
        weights = 1.0 / (_NEAR + np.take_along_axis(distances, nearest, axis=1))
        weights /= weights.sum(axis=1, keepdims=True)
        predicted, measured = predicted[nearest], measured[nearest]

        def mean(each: Array) -> Array:
            return np.asarray((weights * each).sum(axis=1))

        if metric not in _STIFF:
            return costs * mean(measured / predicted)
        middle, height = mean(predicted), mean(measured)
        away = predicted - middle[:, None]
        stiff, usual = _STIFF[metric] ** 2, np.minimum(height / middle, 1.0)
        slope = (mean(away * (measured - height[:, None])) + stiff * usual) / (mean(away**2) + stiff)
        return np.maximum(height + np.clip(slope, 0.0, _STEEPEST) * (costs - middle), 0.0)

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


def _alone(costs: Mapping[Metric, Array]) -> dict[Metric, float]:
    return {metric: float(each[0]) for metric, each in costs.items()}


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """The places of the points (cost, loss) that no other one beats in both, by rising cost."""
    best: list[int] = []
    for i in sorted(range(len(points)), key=lambda i: points[i]):
        if not best or points[i][1] < points[best[-1]][1]:
            best.append(i)
    return best

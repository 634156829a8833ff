"""Target weights: the weights that best repair everything already changed upstream, and the metric to judge others by.

For a layer y = W x + b whose inputs x^ come from the student and whose targets t come from the teacher,

    minimise over What, bhat:   E || t - (What x^ + bhat) ||^2 + lam || What - W ||^2                        (0)

has the solution  W* = W + (C - W H)(H + lam I)^-1,  bhat = tbar - What mu, and for every other What the objective
exceeds the optimum by exactly  tr((What - W*) (H + lam I) (What - W*)^T).  So pruning, factoring or rounding a layer
against its teacher is the same problem as doing it to W* in a metric. (He et al. 2017, "Channel pruning for
accelerating very deep neural networks"; Zhang et al. 2015, asymmetric reconstruction.) The ridge pulls to W, not to 0:
a pull to 0 shrinks the outputs layer after layer.

The ridge is chosen by rows held out from the fit; W itself is among the candidates, so a target never generalises worse
than the weights it replaces. Rows that are too few for the width therefore show as a large ridge, not as an overfit.

What a changed layer then loses against W* is another matter than what W* repairs: a repair has to be told from noise,
while the weights that stay see exactly what those that went did, and make up for it as far as the inputs depend on each
other. So the metric H + lam I has a ridge of its own: no more than `METRICS` begins with (held-out loss of ResNet-20
with four fifths of its weights pruned: 3 % less over all layers, up to 10 % less in one), unless rows held out ask for
more: half of the inputs go, the other half is fitted to stand in for them, and how it does so there is the judge. Rows
of few samples depend on each other where the samples do not: in the last layers of MobileNetV2, with 49 rows of each of
200 images and 960 inputs, half of the channels lost 43 % of the answer on rows not fitted to, and lose 34 % of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError
from .moments import Statistics

Array = NDArray[np.float64]
Floats = NDArray[np.float32]
Real = TypeVar("Real", Array, Floats)

UNREACHED = "not one finite number reaches it, or not only finite ones do: look at the weights before it"
NEVER = "no sample reaches it: give some that take this way"

OVERFLOWS = "the numbers that reach it are too large to fit anything to: look at the weights before it"

LARGEST = 1e18
"""Moments beyond which their squares are more than float32 holds."""

RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # times the mean diagonal of H

METRICS = (1e-2, 3e-2, 1e-1, 3e-1, 1.0)
"""Ridges of the metric in which changes of a layer are judged, relative to the mean diagonal of H."""

WORTH = 0.01
"""By how much of the held-out loss a larger ridge of the metric must gain."""


@dataclass(frozen=True, slots=True)
class LayerTarget:
    """What a layer should become: `weight` (groups, n, d) in the metric `hessian` (groups, d, d).

    `mean` (groups, d) and `target_mean` (groups, n) give the bias; `energy` is the total variance of the teacher's
    answer and `floor` what even W* leaves of it, so (floor + loss) / energy is a relative error. `ridge` is that of the
    repair, relative to the mean diagonal of H, and `damping` what it has above that of the metric; `rows` the number of
    rows behind it.
    """

    weight: Array
    hessian: Array
    mean: Array
    target_mean: Array
    energy: float
    floor: float
    ridge: float
    damping: float
    rows: int

    def repair(self, cross: Array) -> Array:
        """What to add to the weights where the target's cross-covariance (groups, n, d) grows by `cross`."""
        return solve_spd(self.hessian + self.damping * np.eye(self.hessian.shape[1]), cross)

    def loss(self, weight: Array) -> float:
        """tr((What - W*) hessian (What - W*)^T), in the teacher's units; `weight` is (groups, n, d)."""
        return lost_by(weight.reshape(self.weight.shape), self.weight, self.hessian)

    def error(self, weight: Array) -> float:
        """Relative error of `weight`: unexplained part of the teacher's variance, 0 (perfect) upwards."""
        return (self.floor + self.loss(weight)) / max(self.energy, 1e-30)

    def bias(self, weight: Array) -> Array:
        """The optimal bias for `weight`, flat (groups * n,)."""
        return np.asarray((self.target_mean - _answer(weight.reshape(self.weight.shape), self.mean)).reshape(-1))


def lost_by(weight: Array, target: Array, hessian: Array) -> float:
    """tr((W - W*) H (W - W*)^T), over all groups where there are such."""
    delta = weight - target
    return float(np.sum((delta @ hessian) * delta))


def residual(moments: Statistics, weight: Array, *, bias: Array | None = None) -> float:
    """E || t - weight x - bias ||^2 over the rows of `moments`; the optimal bias (groups, n) where none is given."""
    out = float(moments.variance.sum() - 2.0 * np.sum(weight * moments.cross))
    out += float(np.sum((weight @ moments.covariance) * weight))
    if bias is not None:
        out += float(np.sum((moments.target_mean - _answer(weight, moments.mean) - bias) ** 2))
    return max(out, 0.0)


def _answer(weight: Array | Floats, mean: Array) -> Array:
    """W mu, (groups, n)."""
    return np.asarray((weight @ mean[:, :, None])[:, :, 0])


def solve_spd(matrix: Real, right: Real) -> Real:
    """`right @ matrix^-1` per group, for symmetric positive semi-definite `matrix`, in the precision of both.

    Falls back to the pseudo-inverse where the matrix is singular to working precision.
    """
    from scipy.linalg import LinAlgError, cho_factor, cho_solve

    if matrix.shape[0] > 1:
        try:
            return np.asarray(np.linalg.solve(matrix, right.transpose(0, 2, 1)).transpose(0, 2, 1), matrix.dtype)
        except np.linalg.LinAlgError:
            return right @ np.linalg.pinv(matrix, hermitian=True)
    try:
        factor = cho_factor(matrix[0].T, lower=True, check_finite=False)  # its own transpose, in LAPACK's order
    except LinAlgError:
        if matrix.dtype == np.float32:
            return solve_spd(matrix.astype(np.float64), right.astype(np.float64)).astype(np.float32)
        return right @ np.linalg.pinv(matrix, hermitian=True)
    return np.asarray(cho_solve(factor, right[0].T, check_finite=False).T)[None]


def mean_variance(h: Real) -> float:
    """mean(diag H) over all groups."""
    return float(np.mean(np.diagonal(h, axis1=1, axis2=2)))


def damped(h: Real, ridge: float, scale: float | None = None) -> Real:
    """H + lam I with lam = ridge * mean(diag H) over all groups, or times another `scale`, and never zero."""
    diagonal = np.arange(h.shape[1])
    scale = mean_variance(h) if scale is None else scale
    out = np.array(h, order="C")
    out[:, diagonal, diagonal] += ridge * scale if scale > 0.0 else 1.0
    return out


def inverse_factor(h: Array) -> Array:
    """Upper-triangular R with H^-1 = R^T R, for positive definite H (d, d), without forming the inverse.

    Reversing rows and columns turns the lower Cholesky factor of H into the one that is needed (docs/algorithms.md,
    3.2): with F = H reversed = L L^T, R = reversed(L^-1). R_jj^2 is the j-th diagonal of the inverse of H[j:, j:].
    """
    from scipy.linalg import cholesky
    from scipy.linalg.lapack import dtrtri

    low = cholesky(h[::-1, ::-1], lower=True, check_finite=False)
    inverse, info = dtrtri(low, lower=1)
    if info != 0:
        raise DataError("the input covariance is singular: give more samples or a larger ridge")
    return np.ascontiguousarray(inverse[::-1, ::-1])


@dataclass(frozen=True, slots=True)
class Ridges:
    """The ridge of the repair, `None` where nothing repairs better than leaving the weights alone, and the least one of
    the metric; as for a layer that keeps no rows to judge by."""

    repair: float | None = RIDGES[len(RIDGES) // 2]
    metric: float = METRICS[0]


def choose_ridges(weight: Array, fit: Statistics, held_out: Statistics) -> Ridges:
    """The ridges that, fitted on `fit`, answer `held_out` best, for `weight` (groups, n, d). Raises DataError where
    there are rows that are not finite, or whose products are not."""
    largest = fit.largest, held_out.largest
    if not np.isfinite(largest).all():
        raise DataError(UNREACHED)
    if max(*largest, fit.variance.max(), held_out.variance.max()) > LARGEST:
        raise DataError(OVERFLOWS)
    return (
        Ridges(_choose(weight, fit, held_out), _stand_in(weight, fit, held_out))
        if fit.count and held_out.count
        else Ridges()
    )


def fit_target(weight: Array, everything: Statistics, ridges: Ridges = Ridges()) -> LayerTarget:
    """Target of a layer with weights `weight` (groups, n, d), from the moments of all its rows. Raises DataError where
    there are none or they are not finite."""
    h, c = everything.covariance, everything.cross
    if everything.count == 0:
        raise DataError(NEVER)
    if not everything.finite:
        raise DataError(UNREACHED)
    ridge, least = ridges.repair, ridges.metric
    strength = 10.0 * RIDGES[-1] if ridge is None else ridge
    metric, repairing = damped(h, min(strength, least) if least == METRICS[0] else least), damped(h, strength)
    best = weight if ridge is None else weight + solve_spd(repairing, c - weight @ h)
    return LayerTarget(
        weight=best,
        hessian=metric,
        mean=everything.mean,
        target_mean=everything.target_mean,
        energy=float(everything.variance.sum()),
        floor=residual(everything, best),
        ridge=float("inf") if ridge is None else ridge,
        damping=float(repairing[0, 0, 0] - metric[0, 0, 0]),
        rows=everything.count,
    )


def _stand_in(weight: Array, fit: Statistics, held_out: Statistics) -> float:
    """The least ridge with which half of the inputs, fitted on `fit`, stand in for the others on `held_out` about as
    well as with any."""
    half = (weight.shape[2] + 1) // 2
    if half == weight.shape[2]:
        return METRICS[0]
    covariance, judge = fit.covariance.astype(np.float32), held_out.covariance.astype(np.float32)
    goes = weight[:, :, half:].astype(np.float32)
    stays, lack, scale = covariance[:, :half, :half], goes @ covariance[:, half:, :half], mean_variance(covariance)
    losses: list[float] = []
    for ridge in METRICS:
        if len(losses) > 2 and losses[-3] < losses[-2] < losses[-1]:
            break
        kept = solve_spd(damped(stays, ridge, scale), lack)
        off = np.concatenate([kept, -goes], axis=2)
        losses.append(max(float(np.sum((off @ judge) * off)), 0.0))  # below zero by rounding, where inputs hardly vary
    return next(r for r, loss in zip(METRICS, losses, strict=False) if (1.0 - WORTH) * loss <= min(losses))


def _choose(weight: Array, fit: Statistics, held_out: Statistics) -> float | None:
    """The ridge with the lowest held-out residual, or None where the unchanged weights have it.

    What a change S of the weights W does to the residual of `held_out`, with G = C - W H there and the bias that fits
    `fit`, is  <S H, S> - 2 <S, G>  and what the means miss. No large numbers cancel in it, so float32 is enough.
    """
    step = (fit.cross - weight @ fit.covariance).astype(np.float32)
    slope = (held_out.cross - weight @ held_out.covariance).astype(np.float32)
    covariance, judge = fit.covariance.astype(np.float32), held_out.covariance.astype(np.float32)
    drift = held_out.mean - fit.mean
    missed = held_out.target_mean - fit.target_mean - _answer(weight, drift)

    def error(change: Floats) -> float:
        quadratic = np.sum((change @ judge) * change, dtype=np.float64) - 2.0 * np.sum(change * slope, dtype=np.float64)
        return float(quadratic + np.sum((missed - _answer(change, drift)) ** 2))

    unchanged = float(np.sum(missed**2))
    best, least = None, unchanged
    before, worse = np.inf, 0
    for ridge in reversed(RIDGES):
        now = error(solve_spd(damped(covariance, ridge), step))
        if now < least:
            best, least = ridge, now
        # The loss has one valley; where it has risen twice, smaller ridges need not be tried.
        worse = worse + 1 if now > max(before, unchanged) else 0
        if worse == 2:
            break
        before = now
    return best

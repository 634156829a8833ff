"""First and second moments of a linear layer's input and target, streamed in bounded memory.

With rows x (the layer's input at one output position) and t (what the layer should answer there), grouped as a grouped
convolution groups them:

    mu = E[x]    H = E[(x - mu)(x - mu)^T]    tbar = E[t]    C = E[(t - tbar)(x - mu)^T]    var = E[(t - tbar)^2]

These determine every least-squares problem over the layer, so no row is kept. Each chunk is a float32 matrix product
about a fixed shift (the first chunk's mean, so that no digits are lost to a large mean); chunks are summed in float64.
Depthwise layers have groups = channels and a small d: H is block-diagonal and only its blocks are formed. Rows get a
column of ones, so that the same product gives their sums.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]
Array = NDArray[np.float64]

CHUNK = 8192  # rows of one float32 product
RESOLVED = 8 * 2.0**-23
"""The share of an input's mean square below which its variance is the rounding of float32 products."""
SMALLEST = 1e-19
"""The magnitude whose square single precision still holds in full."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """Moments as they stand: `mean` (groups, d), `target_mean` (groups, n), `covariance` H (groups, d, d), `cross` C
    (groups, n, d), `variance` of the target (groups, n), over `count` rows."""

    count: int
    mean: Array
    target_mean: Array
    covariance: Array
    cross: Array
    variance: Array

    @property
    def finite(self) -> bool:
        return math.isfinite(self.largest)

    @property
    def largest(self) -> float:
        """The largest magnitude in `covariance` and `cross`; NaN where one of them holds any."""
        ends = [end for array in (self.covariance, self.cross) for end in (array.max(), -array.min())]
        return float(np.max(ends))

    def broadened(self, weight: Array, share: float) -> Statistics:
        """The moments as if the inputs had white noise besides, which a layer of `weight` (groups, n, d) answers.

        The noise has `share` of the mean variance of an input. With lam for its variance, H + lam I and C + lam W: what
        is fitted to them stays as near to `weight` as a ridge keeps it, and counts changes in directions that the
        inputs never took.
        """
        return self._with_noise(weight, share * float(np.mean(np.diagonal(self.covariance, axis1=1, axis2=2))))

    def joined(self, weight: Array, others: int) -> Statistics:
        """The moments as if `others` more layers of `weight` (groups, n, d) read inputs that are white, each as much in
        the sum as this one: a change D of the weight W costs them |D|^2 / |W|^2 of their answers' variance.

        That is for readers the other way round, x W^T: their moments are a metric over the outputs of this layer, and
        what is fitted here takes one over its inputs alone.
        """
        return self._with_noise(weight, others * float(self.variance.sum()) / max(float(np.sum(weight**2)), 1e-30))

    def answered_by(self, weight: Array, bias: Array | None) -> Statistics:
        """The moments as if a layer of `weight` (groups, n, d) and `bias` (groups * n,) gave the target for the very
        rows that it reads, so that nothing is left to repair."""
        cross = weight @ self.covariance
        mean = (weight @ self.mean[:, :, None])[:, :, 0]
        return replace(
            self,
            target_mean=mean if bias is None else mean + bias.reshape(mean.shape),
            cross=cross,
            variance=np.maximum(np.sum(cross * weight, axis=2), 0.0),
        )

    def _with_noise(self, weight: Array, lam: float) -> Statistics:
        """The moments with inputs that have white noise of variance `lam` besides, which `weight` answers."""
        if not np.isfinite(lam):
            return self  # nothing can be fitted to them anyway
        return replace(
            self,
            covariance=self.covariance + lam * np.eye(self.covariance.shape[1]),
            cross=self.cross + lam * weight,
            variance=self.variance + lam * np.sum(weight**2, axis=2),
        )


@dataclass(frozen=True, slots=True)
class Products:
    """What one chunk of `count` rows adds, in float32 and about the shift: [x 1]^T [x 1] (groups, d + 1, d + 1),
    t^T [x 1] (groups, n, d + 1) and the sums of t^2 (groups, n)."""

    count: int
    xx: Rows
    tx: Rows
    tt: Rows


class Moments:
    """Running sums over rows x (rows, groups, d) and t (rows, groups, n).

    `add` is `shift`, `products` and `take`; the second is all of the work, changes nothing, and may be done for several
    batches at a time once there is a shift.
    """

    __slots__ = ("_shift_t", "_shift_x", "_t", "_tt", "_tx", "_x", "_xx", "count")

    def __init__(self, groups: int, inputs: int, outputs: int) -> None:
        self.count = 0
        self._shift_x: Rows | None = None
        self._shift_t: Rows | None = None
        self._x: Array = np.zeros((groups, inputs))
        self._t: Array = np.zeros((groups, outputs))
        self._xx: Array = np.zeros((groups, inputs, inputs))
        self._tx: Array = np.zeros((groups, outputs, inputs))
        self._tt: Array = np.zeros((groups, outputs))

    def add(self, x: Rows, t: Rows) -> None:
        """Add rows; x is (rows, groups * d) or (rows, groups, d), t likewise with n."""
        self.shift(x, t)
        self.take(self.products(x, t))

    def shift(self, x: Rows, t: Rows) -> None:
        """Fix what is subtracted from all rows, by these, unless it is fixed or there are none."""
        if self._shift_x is None and len(x):
            self._shift_x = self._by_group(x, self._x)[:CHUNK].mean(axis=0, dtype=np.float64).astype(np.float32)
            self._shift_t = self._by_group(t, self._t)[:CHUNK].mean(axis=0, dtype=np.float64).astype(np.float32)

    def products(self, x: Rows, t: Rows) -> list[Products]:
        """What `add` would add, to be handed to `take`; there must be a shift."""
        x, t = self._by_group(x, self._x), self._by_group(t, self._t)
        with np.errstate(over="ignore", invalid="ignore"):  # `Statistics.finite` tells
            return [self._chunk(x[at : at + CHUNK], t[at : at + CHUNK]) for at in range(0, len(x), CHUNK)]

    def take(self, products: list[Products]) -> None:
        """Add what `products` gave."""
        with np.errstate(invalid="ignore"):
            for one in products:
                self.count += one.count
                self._x += one.xx[:, :-1, -1]
                self._t += one.tx[:, :, -1]
                self._xx += one.xx[:, :-1, :-1]
                self._tx += one.tx[:, :, :-1]
                self._tt += one.tt

    def _by_group(self, rows: Rows, sums: Array) -> Rows:
        return rows.reshape(len(rows), *sums.shape)

    def _chunk(self, x: Rows, t: Rows) -> Products:
        assert self._shift_x is not None
        assert self._shift_t is not None
        count, groups, d = x.shape
        t = t - self._shift_t
        tt = np.reshape(np.ones(count, np.float32) @ np.square(t).reshape(count, -1), t.shape[1:])
        if groups == 1:
            flat = np.empty((count, d + 1), np.float32)
            np.subtract(x[:, 0], self._shift_x[0], out=flat[:, :d])
            flat[:, d] = 1.0
            # numpy recognises A^T A and calls the symmetric product
            return Products(count, (flat.T @ flat)[None], (t[:, 0].T @ flat)[None], tt)
        # Inputs by rows: numpy moves them with rows innermost, not with the few inputs of a group.
        columns = np.empty((groups, d + 1, count), np.float32)
        np.subtract(x.transpose(1, 2, 0), self._shift_x[:, :, None], out=columns[:, :d])
        columns[:, d] = 1.0
        rows = columns.transpose(0, 2, 1)
        return Products(count, columns @ rows, t.transpose(1, 2, 0) @ rows, tt)

    def merged(self, other: Moments) -> Moments:
        """The moments of both sets of rows together (exact: the other's sums are re-based to this one's shift)."""
        if self._shift_x is None or self._shift_t is None:
            return other
        out = Moments(self._x.shape[0], self._x.shape[1], self._t.shape[1])
        out._shift_x, out._shift_t = self._shift_x, self._shift_t
        out.count = self.count + other.count
        if other._shift_x is None or (
            np.array_equal(other._shift_x, self._shift_x)
            and other._shift_t is not None
            and np.array_equal(other._shift_t, self._shift_t)
        ):
            out._x, out._t = self._x + other._x, self._t + other._t
            out._xx, out._tx, out._tt = self._xx + other._xx, self._tx + other._tx, self._tt + other._tt
            return out
        k = other.count
        assert other._shift_t is not None
        dx, dt = other._shift_x.astype(np.float64) - self._shift_x, other._shift_t.astype(np.float64) - self._shift_t
        ox, ot = other._x, other._t
        out._x = self._x + ox + k * dx
        out._t = self._t + ot + k * dt
        # One term at a time: each is as large as the sums, which a wide layer has hundreds of megabytes of.
        np.add(self._xx, other._xx, out=out._xx)
        np.add(self._tx, other._tx, out=out._tx)
        for a, b in ((ox, dx), (dx, ox)):
            out._xx += _outer(a, b)
        for a, b in ((ot, dx), (dt, ox)):
            out._tx += _outer(a, b)
        out._xx += k * _outer(dx, dx)
        out._tx += k * _outer(dt, dx)
        out._tt = self._tt + other._tt + 2.0 * ot * dt + k * dt**2
        return out

    def statistics(self, outputs: slice = slice(None), *, centred: bool = True) -> Statistics:
        """The moments of the targets in `outputs` (a slice of the n of every group).

        Not `centred`: about zero instead of the means, for a layer that has no bias to take them up. An input that does
        not vary by more than rounding has no variance: what is left of a difference of sums may be negative, and no
        least squares can be solved with it (a layer that one row reached, inputs of denormal numbers).
        """
        count = max(self.count, 1)
        x, t = self._x / count, self._t[:, outputs] / count
        h, c = self._xx / count, self._tx[:, outputs] / count
        squares = np.array(np.diagonal(h, axis1=1, axis2=2))
        h -= _outer(x, x)
        c -= _outer(t, x)
        # Of what overflows nothing is known: it stays infinite, and whoever reads that leaves the layer.
        _flatten(h, c, (np.diagonal(h, axis1=1, axis2=2) <= RESOLVED * squares) & np.isfinite(squares))
        v = np.maximum(self._tt[:, outputs] / count - t**2, 0.0)
        mean = x if self._shift_x is None else x + self._shift_x
        target_mean = t if self._shift_t is None else t + self._shift_t[:, outputs]
        if centred:
            return Statistics(self.count, mean, target_mean, h, c, v)
        about = np.where(np.abs(mean) < SMALLEST, 0.0, mean)
        h += _outer(about, about)
        c += _outer(target_mean, about)
        return Statistics(self.count, np.zeros_like(mean), np.zeros_like(t), h, c, v + target_mean**2)


def _flatten(h: Array, c: Array, flat: NDArray[np.bool_]) -> None:
    """Set to zero what the inputs in `flat` (groups, d) have of covariances and of cross-covariances, in place."""
    if flat.any():
        np.copyto(h, 0.0, where=flat[:, :, None] | flat[:, None, :])
        np.copyto(c, 0.0, where=flat[:, None, :])


def _outer(a: Array, b: Array) -> Array:
    return a[:, :, None] * b[:, None, :]

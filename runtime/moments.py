"""First and second moments of a linear layer's input and target, streamed in bounded memory.

With rows x (the layer's input at one output position) and t (what the layer should answer there), grouped as a grouped
convolution groups them:

    mu = E[x]    H = E[(x - mu)(x - mu)^T]    tbar = E[t]    C = E[(t - tbar)(x - mu)^T]    var = E[(t - tbar)^2]

These determine every least-squares problem over the layer, so no row is kept. Each chunk is a float32 matrix product
about a fixed shift (the first chunk's mean, so that no digits are lost to a large mean); chunks are summed in float64.
Depthwise layers have groups = channels and a small d: H is block-diagonal and only its blocks are formed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]
Array = NDArray[np.float64]

CHUNK = 8192  # rows of one float32 product


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

    def broadened(self, weight: Array, share: float) -> Statistics:
        """The moments as if the inputs had white noise besides, which a layer of `weight` (groups, n, d) answers.

        The noise has `share` of the mean variance of an input. With lam for its variance, H + lam I and C + lam W: what
        is fitted to them stays as near to `weight` as a ridge keeps it, and counts changes in directions that the
        inputs never took.
        """
        lam = share * float(np.mean(np.diagonal(self.covariance, axis1=1, axis2=2)))
        return replace(
            self,
            covariance=self.covariance + lam * np.eye(self.covariance.shape[1]),
            cross=self.cross + lam * weight,
            variance=self.variance + lam * np.sum(weight**2, axis=2),
        )


class Moments:
    """Running sums over rows x (rows, groups, d) and t (rows, groups, n)."""

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
        groups, d = self._x.shape
        x = x.reshape(len(x), groups, d)
        t = t.reshape(len(t), groups, self._t.shape[1])
        if len(x) == 0:
            return
        if self._shift_x is None or self._shift_t is None:
            self._shift_x = x[:CHUNK].mean(axis=0, dtype=np.float64).astype(np.float32)
            self._shift_t = t[:CHUNK].mean(axis=0, dtype=np.float64).astype(np.float32)
        for start in range(0, len(x), CHUNK):
            self._add_chunk(x[start : start + CHUNK] - self._shift_x, t[start : start + CHUNK] - self._shift_t)

    def _add_chunk(self, x: Rows, t: Rows) -> None:
        self.count += len(x)
        self._x += x.sum(axis=0, dtype=np.float64)
        self._t += t.sum(axis=0, dtype=np.float64)
        self._tt += np.square(t, dtype=np.float64).sum(axis=0)
        if x.shape[1] == 1:
            flat = x[:, 0]
            self._xx[0] += flat.T @ flat  # numpy recognises A^T A and calls the symmetric product
            self._tx[0] += t[:, 0].T @ flat
        else:
            by_group = np.ascontiguousarray(x.transpose(1, 0, 2))
            self._xx += by_group.transpose(0, 2, 1) @ by_group
            self._tx += t.transpose(1, 2, 0) @ by_group

    def merged(self, other: Moments) -> Moments:
        """The moments of both sets of rows together (exact: the other's sums are re-based to this one's shift)."""
        if self._shift_x is None or self._shift_t is None:
            return other
        out = Moments(self._x.shape[0], self._x.shape[1], self._t.shape[1])
        out._shift_x, out._shift_t = self._shift_x, self._shift_t
        out.count = self.count + other.count
        k = other.count
        dx = 0.0 if other._shift_x is None else other._shift_x.astype(np.float64) - self._shift_x
        dt = 0.0 if other._shift_t is None else other._shift_t.astype(np.float64) - self._shift_t
        dx, dt = np.broadcast_to(dx, self._x.shape), np.broadcast_to(dt, self._t.shape)
        ox, ot = other._x, other._t
        out._x = self._x + ox + k * dx
        out._t = self._t + ot + k * dt
        out._xx = self._xx + other._xx + _outer(ox, dx) + _outer(dx, ox) + k * _outer(dx, dx)
        out._tx = self._tx + other._tx + _outer(ot, dx) + _outer(dt, ox) + k * _outer(dt, dx)
        out._tt = self._tt + other._tt + 2.0 * ot * dt + k * dt**2
        return out

    def statistics(self, outputs: slice = slice(None), *, centred: bool = True) -> Statistics:
        """The moments of the targets in `outputs` (a slice of the n of every group).

        Not `centred`: about zero instead of the means, for a layer that has no bias to take them up.
        """
        count = max(self.count, 1)
        x, t = self._x / count, self._t[:, outputs] / count
        h = self._xx / count - x[:, :, None] * x[:, None, :]
        c = self._tx[:, outputs] / count - t[:, :, None] * x[:, None, :]
        v = np.maximum(self._tt[:, outputs] / count - t**2, 0.0)
        mean = x if self._shift_x is None else x + self._shift_x
        target_mean = t if self._shift_t is None else t + self._shift_t[:, outputs]
        if centred:
            return Statistics(self.count, mean, target_mean, h, c, v)
        h = h + mean[:, :, None] * mean[:, None, :]
        c = c + target_mean[:, :, None] * mean[:, None, :]
        return Statistics(self.count, np.zeros_like(mean), np.zeros_like(t), h, c, v + target_mean**2)


def _outer(a: Array, b: Array) -> Array:
    return a[:, :, None] * b[:, None, :]

"""The distribution of an activation, in constant memory whatever the number of samples.

Bins have a width that is a power of two and edges at its multiples; where a value falls outside, the width doubles and
neighbouring bins merge, exactly. So batches can come in any order and sizes, and nothing is read twice. Exact zeros
(what Relu makes of half its input) are counted apart: every grid holds 0 without error.

Extremes are exact. Bins are filled from at most so many elements of a batch, taken at a fixed stride.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BINS = 4096
SAMPLE = 1 << 17


@dataclass(frozen=True, slots=True)
class Observed:
    """Elements of one batch: `some` of them, each standing for `weight`, and the extremes of all that are `finite`."""

    low: float
    high: float
    some: NDArray[np.floating]
    weight: float
    finite: bool = True


def observe(x: NDArray[np.floating], most: int = SAMPLE) -> Observed | None:
    """What there is to count of `x`, by at most `most` of its elements; those that are not finite are left out."""
    flat = x.reshape(-1)
    if not flat.size:
        return None
    low, high = float(flat.min()), float(flat.max())
    finite = math.isfinite(low) and math.isfinite(high)
    if not finite:
        flat = flat[np.isfinite(flat)]
        if not flat.size:
            return Observed(math.inf, -math.inf, flat, 0.0, False)
        low, high = float(flat.min()), float(flat.max())
    # An odd stride does not keep step with rows and channels, whose sizes are mostly even.
    stride = max(1, math.ceil(flat.size / most)) | 1
    some = flat[::stride].copy() if flat.size > most else flat
    return Observed(low, high, some, flat.size / some.size, finite)


class Histogram:
    """Counts over [start, start + BINS) * 2**exponent; `low` and `high` are the exact extremes seen, of what is
    `finite`."""

    __slots__ = ("counts", "exponent", "finite", "high", "low", "start", "zeros")

    def __init__(self) -> None:
        self.low = math.inf
        self.high = -math.inf
        self.finite = True
        self.zeros = 0.0
        self.exponent = 0
        self.start = 0
        self.counts: NDArray[np.float64] = np.zeros(0)

    @property
    def empty(self) -> bool:
        return self.low > self.high

    def add(self, x: NDArray[np.floating], most: int = SAMPLE) -> None:
        """Count the elements of `x`, which `most` of them stand for. Elements that are not finite are left out."""
        self.take(observe(x, most))

    def take(self, observed: Observed | None) -> None:
        """Count what was observed of a batch."""
        if observed is None:
            return
        self.finite &= observed.finite
        if not observed.some.size:
            return
        if observed.low < self.low or observed.high > self.high:
            self.low, self.high = min(self.low, observed.low), max(self.high, observed.high)
            self._cover()
        some, weight = observed.some, observed.weight
        zeros = some.size - np.count_nonzero(some)
        # Scaling by a power of two is exact, so float32 is enough where it holds that power.
        wide = some if abs(self.exponent) < 100 else some.astype(np.float64)
        at = wide * wide.dtype.type(2.0**-self.exponent)
        at -= at.dtype.type(self.start)
        np.clip(at, 0, BINS - 1, out=at)
        counts = np.bincount(at.astype(np.intp), minlength=BINS)  # rounded towards zero, which is down
        if zeros:
            counts[-self.start] -= zeros
        self.zeros += weight * zeros
        self.counts += weight * counts

    def merge(self, other: Histogram) -> None:
        """Count all that `other` has counted."""
        self.finite &= other.finite
        if other.empty:
            return
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        self.zeros += other.zeros
        twin = Histogram()
        twin.low, twin.high, twin.exponent, twin.start = self.low, self.high, other.exponent, other.start
        twin.counts = other.counts.copy()
        self._cover(at_least=other.exponent)
        twin._cover(at_least=self.exponent)
        self._shift(min(self.start, twin.start))
        twin._shift(self.start)
        self.counts += twin.counts

    def points(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Centres and counts of the bins that hold anything, zeros left out; centres kept within the extremes."""
        used = np.flatnonzero(self.counts)
        centres = np.ldexp(used + (self.start + 0.5), self.exponent)
        return np.clip(centres, self.low, self.high), self.counts[used]

    def _cover(self, at_least: int = -1000) -> None:
        """Widen the bins until [low, high] fits."""
        width = max(self.high - self.low, abs(self.high) * 1e-6, abs(self.low) * 1e-6, 1e-35)
        exponent = max(math.ceil(math.log2(width / (BINS - 2))), at_least)
        if not self.counts.size:
            self.exponent = exponent
            self.start = self._first()
            self.counts = np.zeros(BINS)
            return
        while self.exponent < exponent:
            self._double()
        while True:
            start = min(self.start, self._first())
            last = math.floor(math.ldexp(self.high, -self.exponent))
            used = np.flatnonzero(self.counts)
            top = max(last, self.start + int(used[-1]) if used.size else last)
            if top - self._first() < BINS:
                self._shift(self._first() if used.size == 0 else min(start, self.start + int(used[0])))
                return
            self._double()

    def _first(self) -> int:
        return math.floor(math.ldexp(self.low, -self.exponent))

    def _double(self) -> None:
        indices = (np.arange(self.start, self.start + BINS) >> 1) - (self.start >> 1)
        self.counts = np.asarray(np.bincount(indices, self.counts, minlength=BINS)[:BINS], np.float64)
        self.start >>= 1
        self.exponent += 1

    def _shift(self, start: int) -> None:
        """Let the bins begin at `start`; every bin in use must stay inside."""
        if start == self.start:
            return
        counts = np.zeros(BINS)
        used = np.flatnonzero(self.counts)
        counts[used + (self.start - start)] = self.counts[used]
        self.start, self.counts = start, counts

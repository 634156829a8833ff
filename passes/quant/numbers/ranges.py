"""The range of an activation grid, from its histogram.

A grid over [a, b] with K codes has step D = (b - a) / (K - 1). What it does to x is rounding inside, D^2/12 on average,
and clipping outside, so

    E(a, b) = D^2/12 * P(a < x < b, x != 0) + E[(x - b)^2; x > b] + E[(a - x)^2; x < a].

`mse` scans candidates for both ends at once (the tails come from cumulative sums) and takes the least E; a range that
is all to one side of 0 keeps its other end at 0. Where all that is computed of x is a function f of it, element by
element (`through`), the error is that of f(x):

    E(a, b) = D^2/12 * E[f'(x)^2; a < x < b] + E[(f(x) - f(b))^2; x > b] + E[(f(a) - f(x))^2; x < a]

and what is flat is cut: of SiLU and HardSwish all that lies far below zero. `minmax` does that too, where it moves no
f(x) by more than half of a step of a grid for f. `percentile` cuts the same share off both tails; `minmax` cuts none.
Least squares spare what is rare, and in what an output decides by, the rare are the answers: the few logits of a
detector that are above all others. So where a value reaches an output with no layer between (`deciding.py`), nothing
of what was seen is cut off, and `MARGIN` is left for what was not (`wide`); and where all that reads it is a Sigmoid,
its error is weighed through it (`sigmoid`):

    E(a) = D^2/12 * E[s'(x)^2; x > a] + E[(s(a) - s(x))^2; x < a],    b = max(all that was seen, `LIVE`)

as background lies far below and may be cut, while other samples may well be surer than those that were seen.

`entropy` cuts where the distribution P, its tails moved to the ends, loses least to its own average Q over each of
the K codes: it minimises KL(P || Q) (Migacz, "8-bit inference with TensorRT", GTC 2017, slides 22 to 32).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from .histogram import Histogram

Floats: TypeAlias = NDArray[np.float64]
Function: TypeAlias = Callable[[Floats], Floats]

CANDIDATES = 128
SMALLEST = 0.02
"""The shortest end tried, as a share of the extreme."""
MARGIN = 1.25
"""How far other samples are taken to reach beyond those that were seen: the sharpest logits of boxes of a detector were
11 in twelve images and 22 in twelve others."""
LIVE = 4.0
"""The logit of a score of 0.982: what decides by a Sigmoid has codes up to it, whatever was seen."""


def find_range(
    histogram: Histogram, how: str, codes: int, percentile: float = 99.99, through: Function | None = None
) -> tuple[float, float]:
    """The ends of the grid, 0 included; `how` is a rule of the above (`live`: `wide`, up to `LIVE` at least).

    `codes` is the number of codes; `percentile` is in percent; `through` counts for `mse` and `minmax`.
    An empty histogram (nothing finite was seen) gives (0, 0).
    """
    if histogram.empty:
        return 0.0, 0.0
    low, high = min(histogram.low, 0.0), max(histogram.high, 0.0)
    if how in ("wide", "live"):
        return low * MARGIN, max(high * MARGIN, LIVE if how == "live" else 0.0)
    if how == "sigmoid":
        return _through_sigmoid(histogram, codes)
    if low == high:
        return low, high
    if through is not None and how in ("mse", "minmax"):
        return _through(histogram, codes, through, whole=how == "minmax")
    if how == "minmax":
        return low, high
    if how == "percentile":
        return _percentile(histogram, percentile)
    if how == "entropy":
        return _entropy(histogram, codes)
    return _least_squares(histogram, codes)


def _through(histogram: Histogram, codes: int, function: Function, *, whole: bool) -> tuple[float, float]:
    """The least error behind `function`; where the `whole` is to be kept, of the ranges that cut off no more than half
    of a step of its results."""
    x, p = histogram.points()
    low, high = min(histogram.low, 0.0), max(histogram.high, 0.0)
    lows, highs = _candidates(low, high)
    step = (high - low) / (codes - 1)
    before, after = np.maximum(x - step / 2, low), np.minimum(x + step / 2, high)
    y, ends = function(x), (function(lows), function(highs))
    slope = (function(after) - function(before)) / np.maximum(after - before, 1e-30)
    if not all(np.isfinite(part).all() for part in (y, slope, *ends)):
        return (low, high) if whole else _least_squares(histogram, codes)
    kept = np.append(0.0, np.cumsum(p * slope**2))
    first, last = np.searchsorted(x, lows, side="left"), np.searchsorted(x, highs, side="right")
    inside = kept[last][None, :] - kept[first][:, None]
    below, above = _moved(-x[::-1], y[::-1], p[::-1], -lows, ends[0]), _moved(x, y, p, highs, ends[1])
    width = (highs[None, :] - lows[:, None]) / (codes - 1)
    error = width**2 / 12.0 * np.maximum(inside, 0.0) + below[:, None] + above[None, :]
    if whole:
        most = (max(y.max(), *map(np.max, ends)) - min(y.min(), *map(np.min, ends))) / (codes - 1) / 2
        farthest = [
            np.array([np.abs(y[x < a] - f).max(initial=0.0) for a, f in zip(lows, ends[0], strict=True)]),
            np.array([np.abs(y[x > b] - f).max(initial=0.0) for b, f in zip(highs, ends[1], strict=True)]),
        ]
        error = np.where((farthest[0] <= most)[:, None] & (farthest[1] <= most)[None, :], error, np.inf)
    return _least(error, lows, highs)


def _percentile(histogram: Histogram, percentile: float) -> tuple[float, float]:
    x, p = histogram.points()
    p = np.append(p, histogram.zeros)
    order = np.argsort(np.append(x, 0.0), kind="stable")
    x, p = np.append(x, 0.0)[order], p[order]
    share = np.cumsum(p) / p.sum()
    tail = 1.0 - percentile / 100.0
    low = float(x[np.searchsorted(share, tail)])
    high = float(x[min(int(np.searchsorted(share, 1.0 - tail)), len(x) - 1)])
    return min(low, 0.0), max(high, 0.0)


def _entropy(histogram: Histogram, codes: int) -> tuple[float, float]:
    """Both ends shrink by the same share. Zeros are left out, as every grid holds 0 without loss."""
    x, p = histogram.points()
    low, high = min(histogram.low, 0.0), max(histogram.high, 0.0)
    best, ends = np.inf, (low, high)
    for shrink in np.linspace(1.0, SMALLEST, CANDIDATES):
        a, b = low * shrink, high * shrink
        inside = (x >= a) & (x <= b)
        if not inside.any():
            break
        code = np.clip(np.rint((x - a) * ((codes - 1) / (b - a))), 0, codes - 1).astype(np.int64)
        # P has the clipped tails at its ends; Q, made from what is inside alone, cannot know of them.
        kept = p[inside].copy()
        kept[0] += p[x < a].sum()
        kept[-1] += p[x > b].sum()
        sums = np.bincount(code[inside], p[inside], minlength=codes)
        bins = np.bincount(code[inside], minlength=codes)
        q = (sums / np.maximum(bins, 1))[code[inside]]
        kept, q = kept / kept.sum(), q / q.sum()
        divergence = float(np.sum(kept * np.log(kept / q)))
        if divergence < best:
            best, ends = divergence, (a, b)
    return ends


def _least_squares(histogram: Histogram, codes: int) -> tuple[float, float]:
    x, p = histogram.points()
    lows, highs = _candidates(min(histogram.low, 0.0), max(histogram.high, 0.0))
    below, outside_low = _tail(-x[::-1], p[::-1], -lows)
    above, outside_high = _tail(x, p, highs)
    step = (highs[None, :] - lows[:, None]) / (codes - 1)
    inside = p.sum() - outside_low[:, None] - outside_high[None, :]
    error = step**2 / 12.0 * np.maximum(inside, 0.0) + below[:, None] + above[None, :]
    return _least(error, lows, highs)


def _candidates(low: float, high: float) -> tuple[Floats, Floats]:
    """The ends to try, those farthest from 0 last."""
    shrink = np.linspace(SMALLEST, 1.0, CANDIDATES)
    return low * shrink if low < 0.0 else np.zeros(1), high * shrink if high > 0.0 else np.zeros(1)


def _least(error: Floats, lows: Floats, highs: Floats) -> tuple[float, float]:
    """Of equal errors the widest range: it is last, and unseen data lies outside rather than inside."""
    flat = len(error.reshape(-1)) - 1 - int(np.argmin(error.reshape(-1)[::-1]))
    i, j = np.unravel_index(flat, error.shape)
    return float(lows[i]), float(highs[j])


def _through_sigmoid(histogram: Histogram, codes: int) -> tuple[float, float]:
    x, p = histogram.points()
    low, high = min(histogram.low, 0.0), max(histogram.high, LIVE)
    answer = _sigmoid(x)
    weight = p * np.square(answer * (1.0 - answer))
    best, end = np.inf, low
    for a in low * np.linspace(1.0, SMALLEST, CANDIDATES):
        below = x < a
        step = (high - a) / (codes - 1)
        clipped = float(np.sum(p[below] * np.square(_sigmoid(np.full(1, a)) - answer[below])))
        error = step**2 / 12.0 * float(np.sum(weight[~below])) + clipped
        if error < best:
            best, end = error, float(a)
    return min(end, -LIVE) if low < -LIVE else low, high


def _sigmoid(x: Floats) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(x, -80.0, 80.0))))


def _tail(x: Floats, p: Floats, bounds: Floats) -> tuple[Floats, Floats]:
    """For each bound b: the sum of p (x - b)^2, and of p, over x > b. `x` ascends."""
    suffix = [np.append(np.cumsum((p * x**k)[::-1])[::-1], 0.0) for k in range(3)]
    first = np.searchsorted(x, bounds, side="right")
    s0, s1, s2 = (s[first] for s in suffix)
    return np.maximum(s2 - 2.0 * bounds * s1 + bounds**2 * s0, 0.0), s0


def _moved(x: Floats, y: Floats, p: Floats, bounds: Floats, ends: Floats) -> Floats:
    """For each bound b, where y becomes f: the sum of p (y - f)^2 over x > b. `x` ascends."""
    suffix = [np.append(np.cumsum((p * y**k)[::-1])[::-1], 0.0) for k in range(3)]
    s0, s1, s2 = (s[np.searchsorted(x, bounds, side="right")] for s in suffix)
    return np.asarray(np.maximum(s2 - 2.0 * ends * s1 + ends**2 * s0, 0.0))

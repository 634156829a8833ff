"""Rounding weights to a grid so that a layer's answer, not each weight, is off by the least.

Codes q (n, d) on scales s (n,) stand for Q = s q. With W* the target and H the second moments of the input,

    minimise   tr((Q - W*) H (Q - W*)^T)      over integers   low <= q <= high.

`gptq` fixes one column after the other and lets the columns not yet fixed take up the error, which costs one Cholesky
factorisation for all rows (Frantar et al. 2022, arXiv:2210.17323, algorithm 1, with columns by falling H_jj).
`descend` moves single codes to their best place given all others until nothing moves: coordinate descent, each move
lowers the objective (Behdin et al. 2023, "QuantEase", arXiv:2309.01885, equation 8). `exhaustive` tries all 2^d ways
to round up or down, for the few weights a channel of a depthwise convolution.

Codes are all whole numbers in the box, or only those of a `book` of levels (`codebook.py`), each then the nearest one.

The box (low, high) keeps pruned zeros at zero and pairs within what saturating kernels can add (`weights.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ...walk.target import inverse_factor
from .codebook import nearest

Array = NDArray[np.float64]
Floats = NDArray[np.float32]
Real = TypeVar("Real", Array, Floats)

PANEL = 128
"""Columns fixed before the rest hears of it, by one matrix product."""
STRIP = 16
"""Columns of a panel fixed before the rest of the panel hears of it."""
SETTLED = 1e-3
"""Share of the codes below which another sweep would move too few to matter."""
LARGEST_EXHAUSTIVE = 10
TOGETHER = 32
"""Rows searched at a time: their codes, tried and multiplied, fit in the cache."""


@dataclass(frozen=True, slots=True)
class Elimination:
    """What GPTQ needs of a metric (d, d): the `order` of its columns, by falling H_jj, and R with H^-1 = R^T R of the
    metric in that order. 1 / R_jj^2 is what an error in column j costs once those after it have made up for it."""

    order: NDArray[np.intp]
    factor: Floats

    @classmethod
    def of(cls, hessian: Array) -> Elimination:
        """`hessian` must be positive definite."""
        order = np.argsort(-np.diagonal(hessian), kind="stable")
        return cls(order, inverse_factor(hessian[np.ix_(order, order)]).astype(np.float32))

    def costs(self) -> Array:
        """1 / R_jj^2, (d,), in the metric's own order."""
        spread = np.empty(len(self.order))
        spread[self.order] = 1.0 / np.square(np.diagonal(self.factor), dtype=np.float64)
        return spread


def gptq(
    target: Array,
    hessian: Array,
    scale: Array,
    low: Array,
    high: Array,
    *,
    book: Array | None = None,
    elimination: Elimination | None = None,
) -> Array:
    """Codes (n, d), as floats. `hessian` (d, d) must be positive definite; `elimination` is its own, where known."""
    own = elimination or Elimination.of(hessian)
    order, factor = own.order, own.factor
    left, steps = _columns(target)[order], _columns(_spread(scale, target.shape))[order]
    least, most = _columns(low)[order], _columns(high)[order]
    inverse = 1.0 / steps
    codes = np.empty_like(left)

    def fix(j: int) -> Floats:
        codes[j] = _code(left[j] * inverse[j], least[j], most[j], book)
        return np.asarray((left[j] - codes[j] * steps[j]) / factor[j, j], np.float32)

    _eliminate(left, factor, fix)
    ordered = np.empty_like(codes)
    ordered[order] = codes
    return ordered.T.astype(np.float64)


def descend(
    codes: Array,
    target: Array,
    hessian: Array,
    scale: Array,
    low: Array,
    high: Array,
    *,
    sweeps: int = 4,
    book: Array | None = None,
) -> Array:
    """`codes` after at most so many sweeps over the columns."""
    metric = np.asarray(hessian, np.float32)
    diagonal = np.maximum(np.diagonal(metric), np.float32(1e-30))
    now, steps = _columns(codes), _columns(_spread(scale, target.shape))
    least, most = _columns(low), _columns(high)
    inverse = 1.0 / steps
    moved = 0

    def fix(j: int) -> Floats:
        nonlocal moved
        best = _code(now[j] + pull[j] * inverse[j] / diagonal[j], least[j], most[j], book)
        step = best - now[j]
        moved += int(np.count_nonzero(step))
        now[j] = best
        return np.asarray(step * steps[j], np.float32)

    for _ in range(sweeps):
        moved = 0
        pull = metric @ (_columns(target) - now * steps)
        _eliminate(pull, metric, fix)
        if moved <= SETTLED * codes.size:
            break
    return now.T.astype(np.float64)


def _eliminate(state: Floats, coefficients: Floats, fix: Callable[[int], Floats]) -> None:
    """For every row j of `state` (d, n) in order: delta = fix(j), and row k after it loses coefficients[j, k] delta.

    Rows far off are told of many deltas at once, by a matrix product.
    """
    d, n = state.shape
    for start in range(0, d, PANEL):
        end = min(start + PANEL, d)
        deltas = np.empty((end - start, n), np.float32)
        for a in range(start, end, STRIP):
            b = min(a + STRIP, end)
            for j in range(a, b):
                deltas[j - start] = delta = fix(j)
                state[j + 1 : b] -= coefficients[j, j + 1 : b, None] * delta
            if b < end:
                state[b:end] -= coefficients[a:b, b:end].T @ deltas[a - start : b - start]
        if end < d:
            state[end:] -= coefficients[start:end, end:].T @ deltas


def _columns(array: Array) -> Floats:
    """(n, d) as float32 columns, each of them contiguous; always a copy."""
    return np.array(array.T, np.float32, order="C")


def _spread(scale: Array, shape: tuple[int, ...]) -> Array:
    """Scales (..., n), or (..., n, blocks) for blocks of columns, as one for each of the weights of `shape`."""
    if scale.ndim < len(shape):
        return np.broadcast_to(scale[..., None], shape)
    return np.repeat(scale, shape[-1] // scale.shape[-1], axis=-1)


def _code(x: Real, low: Real, high: Real, book: Array | None) -> Real:
    near = np.rint(x) if book is None else nearest(np.asarray(x, np.float64), book)
    return np.asarray(np.minimum(np.maximum(near, low), high), x.dtype)


def exhaustive(target: Array, hessian: Array, scale: Array, low: Array, high: Array) -> Array:
    """Codes (g, d) of one row a group: `target` (g, d), `hessian` (g, d, d), `scale` (g,); d is at most
    `LARGEST_EXHAUSTIVE`."""
    d = target.shape[1]
    wanted = target / scale[:, None]
    patterns = ((np.arange(1 << d)[:, None] >> np.arange(d)) & 1).astype(np.float64)
    floor = np.floor(wanted)
    codes = np.empty_like(wanted)
    for at in range(0, len(wanted), TOGETHER):
        part = slice(at, at + TOGETHER)
        tried = np.clip(floor[part, None] + patterns, low[part, None], high[part, None])
        off = tried - wanted[part, None]
        best = np.einsum("gpd,gpd->gp", off @ hessian[part], off).argmin(axis=1)
        codes[part] = tried[np.arange(len(best)), best]
    return codes


def losses(codes: Array, target: Array, hessian: Array, scale: Array) -> Array:
    """(Q - W*) H (Q - W*)^T of every row: `codes`, `target` (g, n, d), `hessian` (g, d, d), `scale` (g, n) or
    (g, n, blocks)."""
    off = (codes * _spread(scale, target.shape) - target).astype(np.float32)
    return np.asarray(((off @ hessian.astype(np.float32)) * off).sum(axis=-1, dtype=np.float64))


def round_to_grid(
    target: Array,
    hessian: Array,
    scale: Array,
    low: Array,
    high: Array,
    *,
    sweeps: int = 4,
    book: Array | None = None,
    eliminations: Sequence[Elimination] | None = None,
    enough: float = 0.0,
) -> Array:
    """The best codes found for a layer, (g, n, d) each but `hessian` (g, d, d) and `scale` (g, n) or (g, n, blocks).

    `eliminations` are those of each metric, where they are known. Codes are not moved singly where the loss of a group
    is no more than its share of `enough` without."""
    if book is None and is_small(target):
        moved = exhaustive(target[:, 0], hessian, scale[:, 0], low[:, 0], high[:, 0])
        return moved[:, None]
    plain = _code(target / _spread(scale, target.shape), low, high, book)
    best, least = plain, losses(plain, target, hessian, scale)
    moved = np.empty_like(target)
    for g in range(len(target)):
        parts = target[g], hessian[g], scale[g], low[g], high[g]
        ordered = gptq(*parts, book=book, elimination=None if eliminations is None else eliminations[g])
        lost = float(losses(ordered, *parts[:3]).sum()) * len(target)
        moved[g] = descend(ordered, *parts, sweeps=sweeps, book=book) if lost > enough else ordered
    better = losses(moved, target, hessian, scale) < least
    return np.where(better[..., None], moved, best)


def is_small(target: Array) -> bool:
    """Whether a layer (g, n, d) is a depthwise one whose codes are searched exhaustively."""
    groups, n, d = target.shape
    return bool(n == 1 and groups > 1 and d <= LARGEST_EXHAUSTIVE)

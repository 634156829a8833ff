"""Exchanging kept weights for dropped ones, as long as that lowers the loss.

    minimise  tr((W - W*) H (W - W*)^T)   over W and its mask

With the kept weights fitted, dropping w_i from a row costs w_i^2 v_i, and taking in a dropped j gains r_j^2 / v_j,
where r = (W* - W) H is what the row lacks and v the variance of an input given the other kept ones, which make up for
it. That lies between 1 / [H^-1]_jj (all others are kept) and H_jj (none is); computing it would take an inverse a row,
so a geometric mean of the two stands for it, which finds most of what the exact one does.

First, where the pattern leaves it free, weights are moved between rows by iterative hard thresholding. Then every row
makes its best exchanges, and keeps them where its own loss fell after a short refit; a row where it did not tries fewer
at a time. So no exchange can raise the loss. Products are in single precision; a fit ends when
a step gains little against what is left, long before the weights are exact: the next mask moves them anyway.
"""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import NDArray

from ..walk.refit import Fit, fit_masked
from .masks import Array, Mask, Pattern, Unstructured, keep_largest

ROUNDS = 8
"""Rounds of moving weights between rows, and then of exchanging within rows."""
FEW = 2
"""Rounds that are enough where little is lost: what is left to gain is a few hundredths of that (ResNet-20 within half
a percent of each layer's answer)."""
GAIN = 1e-3
"""What a step must gain, as a share of the loss that is left, to be followed by another."""
MARGINAL = 0.35
"""Weight of H_jj in the geometric mean."""


def exchange(weight: Array, hessian: Array, pattern: Pattern, start: Array, *, rounds: int = ROUNDS) -> Array:
    """The weights (n, d) of `pattern` with the least loss that exchanges in so many rounds lead to from `start`, for
    the target `weight` in the metric `hessian` (d, d), which must be positive definite."""
    w, h, spread = single(weight), single(hessian), single(_conditional(hessian))
    best = _fit(w, h, start != 0.0, single(start))
    if isinstance(pattern, Unstructured):
        best = _between_rows(w, h, pattern, best, rounds)
    return settled(w, h, _within_rows(w, h, pattern, best, spread, rounds))


def settled(weight: Array, hessian: Array, start: Array) -> Array:
    """The weights that are not zero in `start`, fitted to the last that single precision tells."""
    fit = fit_masked(single(weight), single(hessian), start != 0.0, start=single(start), steps=30, gain=1e-4)
    return fit.weight.astype(np.float64)


def _fit(w: Array, h: Array, mask: Mask, start: Array) -> Fit:
    return fit_masked(w, h, mask, start=start, steps=8, gain=GAIN)


def single(array: Array) -> Array:
    """In single precision, which the products here do not tell from double."""
    return cast("Array", array.astype(np.float32, copy=False))


def _conditional(hessian: Array) -> Array:
    """About the variance of every input (d,) given the others that are kept."""
    from scipy.linalg.lapack import dpotrf, dpotri

    marginal = np.diagonal(hessian)
    factor, failed = dpotrf(hessian, lower=1)
    if failed:
        return np.asarray(marginal)
    inverse, _ = dpotri(factor, lower=1)
    return np.asarray(np.diagonal(inverse) ** (MARGINAL - 1.0) * marginal**MARGINAL)


def _between_rows(w: Array, h: Array, pattern: Pattern, best: Fit, rounds: int) -> Fit:
    spread = np.diagonal(h)
    for _ in range(rounds):
        # where one step would take each weight, dropped ones too
        moved = best.weight + best.lacks / spread
        fitted = _fit(w, h, keep_largest(moved**2 * spread, pattern), moved)
        if fitted.loss.sum() >= best.loss.sum() * (1.0 - GAIN):
            break
        best = fitted
    return best


def _within_rows(w: Array, h: Array, pattern: Pattern, best: Fit, spread: Array, rounds: int) -> Array:
    share = np.full(len(w), 0.5)
    kept, lacks, least = best.weight, best.lacks, best.loss
    for _ in range(rounds):
        mask = _exchanged(kept, lacks, spread, pattern, share)
        rows = np.flatnonzero((mask != (kept != 0.0)).any(axis=1))
        if len(rows) == 0:
            break
        begin = np.where(mask & (kept == 0.0), lacks / spread, kept)[rows]
        fitted = _fit(w[rows], h, mask[rows], begin)
        better = fitted.loss < least[rows]
        at = rows[better]
        kept[at], lacks[at], least[at] = fitted.weight[better], fitted.lacks[better], fitted.loss[better]
        share[rows[~better]] /= 3.0
    return kept


def _exchanged(kept: Array, lacks: Array, spread: Array, pattern: Pattern, share: NDArray[np.float64]) -> Mask:
    """The mask (n, d) after the best of each row's exchanges that promise something, `share` (n,) of them."""
    n, d = kept.shape
    size = d if isinstance(pattern, Unstructured) else pattern.m
    whole = d // size * size
    mask = kept != 0.0
    groups = mask[:, :whole].reshape(n, -1, size)
    cost = np.where(mask, kept**2 * spread, np.inf)[:, :whole].reshape(groups.shape)
    gain = np.where(mask, 0.0, lacks**2 / spread)[:, :whole].reshape(groups.shape)
    out, into = np.argsort(cost, axis=2, kind="stable"), np.argsort(-gain, axis=2, kind="stable")
    out, into = out[:, :, : (size + 1) // 2], into[:, :, : (size + 1) // 2]
    net = np.take_along_axis(gain, into, 2) - np.take_along_axis(cost, out, 2)
    flat = net.reshape(n, -1)
    wanted = np.ceil(share * (flat > 0.0).sum(axis=1))
    rank = np.broadcast_to(np.arange(flat.shape[1]), flat.shape)  # within a group the best come first
    if groups.shape[1] > 1:
        rank = np.empty(flat.shape, dtype=np.intp)
        np.put_along_axis(rank, np.argsort(-flat, axis=1, kind="stable"), np.arange(flat.shape[1])[None], axis=1)
    taken = ((flat > 0.0) & (rank < wanted[:, None])).reshape(net.shape)
    row, group, which = np.nonzero(taken)
    groups = groups.copy()
    groups[row, group, out[row, group, which]] = False
    groups[row, group, into[row, group, which]] = True
    mask = np.array(mask)
    mask[:, :whole] = groups.reshape(n, whole)
    return np.asarray(mask, dtype=bool)

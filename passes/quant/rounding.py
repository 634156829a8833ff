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

import numpy as np
from numpy.typing import NDArray

from ..regression import inverse_factor
from .codebook import nearest

Array = NDArray[np.float64]

BLOCK = 64
LARGEST_EXHAUSTIVE = 10


def gptq(target: Array, hessian: Array, scale: Array, low: Array, high: Array, *, book: Array | None = None) -> Array:
    """Codes (n, d), as floats. `hessian` (d, d) must be positive definite."""
    order = np.argsort(-np.diagonal(hessian), kind="stable")
    factor = inverse_factor(hessian[np.ix_(order, order)])
    left = (target / scale[:, None])[:, order]
    low, high = low[:, order], high[:, order]
    codes = np.empty_like(left)
    d = left.shape[1]
    for start in range(0, d, BLOCK):
        end = min(start + BLOCK, d)
        errors = np.empty((len(left), end - start))
        for j in range(start, end):
            q = _code(left[:, j], low[:, j], high[:, j], book)
            error = (left[:, j] - q) / factor[j, j]
            left[:, j + 1 : end] -= error[:, None] * factor[j, j + 1 : end]
            codes[:, j], errors[:, j - start] = q, error
        left[:, end:] -= errors @ factor[start:end, end:]
    found = np.empty_like(codes)
    found[:, order] = codes
    return found


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
    codes = codes.copy()
    wanted = target / scale[:, None]
    diagonal = np.maximum(np.diagonal(hessian), 1e-30)
    for _ in range(sweeps):
        pull = (wanted - codes) @ hessian
        moved = False
        for start in range(0, codes.shape[1], BLOCK):
            end = min(start + BLOCK, codes.shape[1])
            inside = hessian[start:end, start:end]
            steps = np.zeros((len(codes), end - start))
            for j in range(start, end):
                best = _code(codes[:, j] + pull[:, j] / diagonal[j], low[:, j], high[:, j], book)
                step = best - codes[:, j]
                if step.any():
                    pull[:, start:end] -= step[:, None] * inside[j - start]
                    codes[:, j] = best
                    steps[:, j - start] = step
            if steps.any():
                moved = True
                pull[:, end:] -= steps @ hessian[start:end, end:]
        if not moved:
            break
    return codes


def _code(x: Array, low: Array, high: Array, book: Array | None) -> Array:
    near = np.rint(x) if book is None else nearest(x, book)
    return np.minimum(np.maximum(near, low), high)


def exhaustive(target: Array, hessian: Array, scale: Array, low: Array, high: Array) -> Array:
    """Codes (g, d) of one row a group: `target` (g, d), `hessian` (g, d, d), `scale` (g,); d is at most
    `LARGEST_EXHAUSTIVE`."""
    d = target.shape[1]
    wanted = target / scale[:, None]
    patterns = ((np.arange(1 << d)[:, None] >> np.arange(d)) & 1).astype(np.float64)
    floor = np.floor(wanted)
    codes = np.empty_like(wanted)
    for g in range(len(wanted)):
        tried = np.clip(floor[g] + patterns, low[g], high[g])
        off = tried - wanted[g]
        codes[g] = tried[int(np.argmin(np.einsum("pd,pd->p", off @ hessian[g], off)))]
    return codes


def losses(codes: Array, target: Array, hessian: Array, scale: Array) -> Array:
    """(Q - W*) H (Q - W*)^T of every row: `codes`, `target` (g, n, d), `hessian` (g, d, d), `scale` (g, n)."""
    off = codes * scale[..., None] - target
    return np.asarray(((off @ hessian) * off).sum(axis=2))


def round_to_grid(
    target: Array, hessian: Array, scale: Array, low: Array, high: Array, *, sweeps: int = 4, book: Array | None = None
) -> Array:
    """The best codes found for a layer, (g, n, d) each but `hessian` (g, d, d) and `scale` (g, n)."""
    groups, n, d = target.shape
    if book is None and n == 1 and groups > 1 and d <= LARGEST_EXHAUSTIVE:
        found = exhaustive(target[:, 0], hessian, scale[:, 0], low[:, 0], high[:, 0])
        return found[:, None]
    plain = _code(target / scale[..., None], low, high, book)
    best, least = plain, losses(plain, target, hessian, scale)
    found = np.empty_like(target)
    for g in range(groups):
        given = target[g], hessian[g], scale[g], low[g], high[g]
        found[g] = descend(gptq(*given, book=book), *given, sweeps=sweeps, book=book)
    better = losses(found, target, hessian, scale) < least
    return np.where(better[..., None], found, best)

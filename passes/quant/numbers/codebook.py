"""Weights from a table of 16 numbers: four bits in the file, int8 in the kernel, and levels where the weights are.

    weight codes = book[indices]       book: 16 of the int8 codes;  indices: uint4, one a weight

A uniform grid of 16 steps spends as many of them on the rare large weights as on the many small ones. The book of a
layer is the set of int8 codes with the least

    sum_w h_w (v_w - nearest(v_w))^2,        v = W / s in units of the int8 grid, h = s^2 E[x^2]

found exactly: over these codes it is one-dimensional k-means, solved by dynamic programming (Wang and Song 2011,
"Ckmeans.1d.dp", equation 1). One level is always 0, so zeros stay zeros. Scales a channel and the book are fitted in
turn; then codes are rounded on the walk as on a uniform grid, each to the nearest level (`rounding.py`).
"""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from .search import search

Array = NDArray[np.float64]

LEVELS = 16
TOP = 64
"""The largest level. Pairs of them, times activations up to 255, fit in 16 bits, where some kernels add them."""
LEAST = 1024
"""Weights from which on a book is worth its table and operators."""
SHRINKS = np.linspace(0.55, 1.15, 13)
ROUNDS = 3


def fit_book(goal: Array, diagonal: Array, mask: NDArray[np.bool_], least: Array) -> tuple[Array, Array]:
    """The book (16,), sorted, and the scales (groups, n) of `goal` (groups, n, d), whose inputs have mean squares
    `diagonal` (groups, d). Weights outside of `mask` do not count; scales are at least `least` (groups, n)."""
    weigh = np.where(mask, diagonal[:, None, :], 0.0)
    peak = np.maximum(np.maximum(np.abs(goal).max(axis=2) / TOP, least), 1e-30)
    candidates = [np.maximum(peak * shrink, least).astype(np.float32).astype(np.float64) for shrink in SHRINKS]
    scale = peak
    for _ in range(ROUNDS):
        book = best_levels(goal / scale[..., None], weigh * scale[..., None] ** 2)
        scale = search(scale, candidates, partial(_loss, goal, weigh, book))
    return book, scale


def _loss(goal: Array, weigh: Array, book: Array, scale: Array) -> Array:
    off = goal - nearest(goal / scale[..., None], book) * scale[..., None]
    return np.asarray((weigh * off**2).sum(axis=2))


def nearest(x: Array, book: Array) -> Array:
    """The level of the sorted `book` that is nearest to each number."""
    return np.asarray(book[np.searchsorted(0.5 * (book[1:] + book[:-1]), x)])


def best_levels(values: Array, weight: Array) -> Array:
    """The 16 whole numbers in [-64, 64], 0 among them, with the least weighted squared distance to `values`."""
    bins = np.clip(np.rint(values), -TOP, TOP).astype(np.int64).reshape(-1) + TOP
    mass = np.bincount(bins, weight.reshape(-1), 2 * TOP + 1)
    at = np.arange(-TOP, TOP + 1, dtype=np.float64)
    zero, one, two = (np.concatenate([[0.0], np.cumsum(mass * at**k)]) for k in range(3))
    # cost[i, j]: of codes i .. j - 1 on one whole level, the rounded mean of theirs.
    n = len(at)
    i, j = np.meshgrid(np.arange(n), np.arange(n + 1), indexing="ij")
    m0, m1, m2 = (total[j] - total[i] for total in (zero, one, two))
    level = np.rint(np.divide(m1, m0, out=at[np.minimum((i + j) // 2, n - 1)].copy(), where=m0 > 0))
    covers = (at[i] <= 0) & (j > TOP)  # the codes from i on to j - 1 hold 0
    level = np.where(covers & (j > i), 0.0, level)
    cost = np.where(j > i, m2 - 2 * level * m1 + level**2 * m0, np.inf)
    best = np.concatenate([[0.0], cost[0, 1:]])
    cut = np.zeros((LEVELS, n + 1), np.int64)
    for k in range(1, LEVELS):
        total = best[:n, None] + cost
        cut[k] = np.argmin(total, axis=0)
        fresh = total[cut[k], np.arange(n + 1)]
        cut[k], best = np.where(fresh < best, cut[k], -1), np.minimum(fresh, best)
    levels, end = [], n
    for k in range(LEVELS - 1, -1, -1):
        start = int(cut[k, end]) if k else 0
        if start < 0:
            continue  # one level fewer does as well
        levels.append(float(level[start, end]))
        end = start
        if end == 0:
            break
    spare = [float(code) for code in range(TOP, -TOP - 1, -1) if float(code) not in levels]
    return np.sort(np.asarray([*levels, *spare[: LEVELS - len(levels)]]))

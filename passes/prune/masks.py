"""Which weights to keep: SparseGPT's order, magnitude, and N:M groups.

All masks are boolean (n, d), True where the weight stays. SparseGPT (Frantar & Alistarh 2023, section 3) walks columns
from left to right; with H^-1 = R^T R the loss of dropping w_ij after columns < j are settled is (w_ij / R_jj)^2, and
the error of what was dropped is pushed onto the columns to the right, so one factorisation serves all rows. Magnitude
with the input's scale, |w_ij| sqrt(H_jj) (Wanda, Sun et al. 2023), costs nothing; once the kept weights are refitted
it is often as good, so callers score both and keep the better one.

Ties are broken by position (never `<= threshold`, which would drop every tied weight).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Unstructured:
    """Drop the fraction `sparsity` of the weights, wherever they are."""

    sparsity: float


@dataclass(frozen=True, slots=True)
class Grouped:
    """Keep `n` of every `m` consecutive columns of a row (a tail shorter than `m` is kept whole)."""

    n: int
    m: int


Pattern = Unstructured | Grouped


def keep_largest(score: Array, pattern: Pattern) -> Mask:
    """The mask of `pattern` that keeps the largest scores (n, d)."""
    if isinstance(pattern, Unstructured):
        return _largest(score.reshape(-1), round(pattern.sparsity * score.size)).reshape(score.shape)
    keep = np.ones(score.shape, dtype=bool)
    whole = score.shape[1] // pattern.m * pattern.m
    groups = score[:, :whole].reshape(len(score), -1, pattern.m)
    order = np.argsort(groups, axis=2, kind="stable")[:, :, : pattern.m - pattern.n]
    np.put_along_axis(keep[:, :whole].reshape(groups.shape), order, False, axis=2)
    kept = np.ones(groups.shape, dtype=bool)
    np.put_along_axis(kept, order, False, axis=2)
    keep[:, :whole] = kept.reshape(len(score), -1)
    return keep


def _largest(score: Array, drop: int) -> Mask:
    """All but the `drop` least of the scores (any number,); of equal ones the first go."""
    if drop == 0:
        return np.ones(score.shape, dtype=bool)
    last = np.partition(score, drop - 1)[drop - 1]
    keep = score > last
    equal = np.flatnonzero(score == last)
    keep[equal[drop - np.count_nonzero(score < last) :]] = True
    return np.asarray(keep)


def sparsegpt_mask(weight: Array, factor: Array, pattern: Pattern, *, block: int = 128) -> Mask:
    """SparseGPT's mask of `weight` (n, d), with `factor` the upper R (d, d) of H^-1 = R^T R.

    Unstructured masks drop the same fraction of every block of columns, freely among the rows; N:M groups are chosen
    when their first column is reached, from the weights as updated so far.
    """
    w = weight.copy()
    keep = np.ones(w.shape, dtype=bool)
    d = w.shape[1]
    if isinstance(pattern, Grouped):
        block = max(block // pattern.m, 1) * pattern.m
    scale = np.diagonal(factor) ** 2
    for a in range(0, d, block):
        b = min(a + block, d)
        if isinstance(pattern, Unstructured):
            keep[:, a:b] = keep_largest(w[:, a:b] ** 2 / scale[a:b], pattern)
        errors = np.zeros((len(w), b - a))
        for j in range(a, b):
            if isinstance(pattern, Grouped) and (j - a) % pattern.m == 0 and j + pattern.m <= d:
                group = slice(j, j + pattern.m)
                keep[:, group] = keep_largest(w[:, group] ** 2 / scale[group], pattern)
            error = np.where(keep[:, j], 0.0, w[:, j]) / factor[j, j]
            w[:, j:b] -= error[:, None] * factor[j, j:b]
            errors[:, j - a] = error
        w[:, b:] -= errors @ factor[a:b, b:]
    return keep

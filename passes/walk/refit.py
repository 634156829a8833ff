"""Least-squares refit of the weights a mask keeps.

    minimise  tr((W - W*) H (W - W*)^T)   subject to  W = W . M

Every row is its own sparse normal equation; Jacobi-preconditioned conjugate gradients solve all rows at once, one
n x d x d product an iteration, which is told what it gained and what it leaves: a search over masks needs no product
besides. Ten to thirty iterations reach the exact per-row solution to many digits; `refit_columns` is the direct solve
for a mask that is the same for all rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Fit:
    """Weights (n, d) on a mask; what they lack, (W* - W) H (n, d), on dropped inputs too; the loss of each row (n,)."""

    weight: Array
    lacks: Array
    loss: Array


def fit_masked(
    target: Array, hessian: Array, mask: Mask, *, start: Array | None = None, steps: int = 40, gain: float = 1e-10
) -> Fit:
    """The kept weights nearest to `target` (n, d) in the metric `hessian` (d, d), zero where `mask` is False.

    Stops after `steps` iterations, or when one lowers the loss by no more than `gain` of what is left. Everything is in
    the precision of `hessian`.
    """
    tiny = float(np.finfo(hessian.dtype).tiny)
    inverse = 1.0 / np.maximum(np.diagonal(hessian), 1e-30)
    w = np.where(mask, target if start is None else start, 0.0)
    lacks = (target - w) @ hessian
    loss = _rows(lacks, target - w)
    r = lacks * mask
    p = r * inverse
    rho = _rows(r, p)
    for _ in range(steps):
        if not rho.any():
            break
        a = p @ hessian
        step = rho / np.maximum(_rows(p, a * mask), tiny)
        w += step[:, None] * p
        lacks -= step[:, None] * a
        fell = step * rho
        loss -= fell
        if fell.sum() <= gain * max(float(loss.sum()), tiny):
            break
        r = lacks * mask
        z = r * inverse
        fresh = _rows(r, z)
        p = z + (fresh / np.maximum(rho, tiny))[:, None] * p
        rho = fresh
    return Fit(w, lacks, np.maximum(loss, 0.0))


def _rows(a: Array, b: Array) -> Array:
    """The inner product of each row of `a` with that of `b`."""
    return np.asarray(np.einsum("nd,nd->n", a, b))


def refit_masked(target: Array, hessian: Array, mask: Mask, *, steps: int = 40) -> Array:
    """The weights of `fit_masked`, to many digits."""
    return fit_masked(target, hessian, mask, steps=steps).weight


def refit_columns(target: Array, hessian: Array, columns: NDArray[np.intp]) -> Array:
    """The weights (n, len(columns)) on the kept `columns` that are nearest to `target` in the metric `hessian`."""
    from scipy.linalg import cho_factor, cho_solve

    factor = cho_factor(hessian[np.ix_(columns, columns)], lower=True, check_finite=False)
    return np.asarray(cho_solve(factor, (target @ hessian[:, columns]).T, check_finite=False).T)

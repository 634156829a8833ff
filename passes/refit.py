"""Least-squares refit of the weights a mask keeps.

    minimise  tr((W - W*) H (W - W*)^T)   subject to  W = W . M

Every row is its own sparse normal equation; Jacobi-preconditioned conjugate gradients solve all rows at once, one
n x d x d product an iteration. Ten to thirty iterations reach the exact per-row solution to many digits;
`refit_columns` is the direct solve for a mask that is the same for all rows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


def refit_masked(
    target: Array, hessian: Array, mask: Mask, *, start: Array | None = None, steps: int = 40, tolerance: float = 1e-7
) -> Array:
    """The kept weights (n, d) nearest to `target` (n, d) in the metric `hessian` (d, d), zero where `mask` is False.

    Stops when the residual has fallen by `tolerance` (relative, over all rows) or after `steps` iterations.
    """
    tiny = float(np.finfo(hessian.dtype).tiny)
    inverse = 1.0 / np.maximum(np.diagonal(hessian), 1e-30)
    w = np.where(mask, target if start is None else start, 0.0)
    r = ((target - w) @ hessian) * mask
    z = r * inverse
    p = z.copy()
    rho = np.sum(r * z, axis=1)
    stop = tolerance**2 * max(float(rho.sum()), tiny)
    for _ in range(steps):
        if rho.sum() <= stop:
            break
        a = (p @ hessian) * mask
        step = rho / np.maximum(np.sum(p * a, axis=1), tiny)
        w += step[:, None] * p
        r -= step[:, None] * a
        z = r * inverse
        fresh = np.sum(r * z, axis=1)
        p = z + (fresh / np.maximum(rho, tiny))[:, None] * p
        rho = fresh
    return w


def refit_columns(target: Array, hessian: Array, columns: NDArray[np.intp]) -> Array:
    """The weights (n, len(columns)) on the kept `columns` that are nearest to `target` in the metric `hessian`."""
    from scipy.linalg import cho_factor, cho_solve

    factor = cho_factor(hessian[np.ix_(columns, columns)], lower=True, check_finite=False)
    return np.asarray(cho_solve(factor, (target @ hessian[:, columns]).T, check_finite=False).T)
